#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace rubato {

/// Writes `content` to `path` such that a crash at any moment leaves either the old file or the new one. DataError (path and
/// the system's reason) when it cannot.
void write_atomically(const std::filesystem::path& path, std::string_view content);

/// Writes and syncs without the rename; for files inside a folder that is itself renamed into place.
void write_synced(const std::filesystem::path& path, std::string_view content);

/// The whole file; DataError when it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Makes renames and new names in `folder` durable.
void sync_folder(const std::filesystem::path& folder);

}  // namespace rubato
