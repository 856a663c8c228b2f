#pragma once

#include <filesystem>
#include <string>

namespace rubato {

/// The text of a TOML file that somebody names on a command line. DataError when it cannot be read or is longer than any
/// configuration (4 MiB): /dev/zero never ends.
std::string toml_file(const std::filesystem::path& path);

/// UsageError, with `name` and the line, for a key of more than 32 parts: what is made of it is as deep, and whoever walks
/// through that runs out of stack. To be asked before `text` is parsed.
void refuse_deep_keys(const std::string& text, const std::string& name);

}  // namespace rubato
