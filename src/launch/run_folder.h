#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace rubato {

/// The run folder that `arguments` of a job name: --resume RUN or --run-dir RUN. When they name none, a new one is made under
/// `runs` and --run-dir is added, so that all processes agree. The folder exists afterwards. UsageError, DataError.
std::filesystem::path agree_on_run_folder(std::vector<std::string>& arguments, const std::filesystem::path& runs = "runs");

}  // namespace rubato
