#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace rubato {

/// The whole file. DataError with path and reason ("cannot read a/b: Permission denied") when it cannot be read, or is a folder.
std::string whole_file(const std::filesystem::path& path);

/// Why nobody can say whether there is something at `path`: "Permission denied", "File name too long". Nothing: one can.
std::optional<std::string> hidden_by(const std::filesystem::path& path);

/// "a/b: Permission denied", for what the standard library says in three lines of its own.
std::string sentence_of(const std::filesystem::filesystem_error& error);

}  // namespace rubato
