#pragma once

#include "launch/job_file.h"

namespace rubato {

/// `text` as one word of a POSIX shell's command line.
std::string shell_quoted(const std::string& text);

/// How to start process `index` of `job`, whose files are in `run`, in the environment `inherited` ("NAME=VALUE"): here directly,
/// on another host through `job.ssh`. DataError when the credentials that a remote process is to read cannot be read here.
Command command_of(const JobRecord& job, std::size_t index, const std::filesystem::path& run,
                   const std::vector<std::string>& inherited);

/// "NAME=VALUE" of this process.
std::vector<std::string> inherited_environment();

}  // namespace rubato
