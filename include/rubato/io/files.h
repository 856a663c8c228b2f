#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "rubato/core/function_ref.h"

namespace rubato {

/// Writes `content` to `path` such that a crash at any moment leaves either the old file or the new one. DataError (path and
/// the system's reason) when it cannot.
void write_atomically(const std::filesystem::path& path, std::string_view content);

/// A file written part by part and synced at the end, for content that is too large to hold twice.
class SyncedFile {
 public:
  explicit SyncedFile(std::filesystem::path path);
  ~SyncedFile();
  SyncedFile(const SyncedFile&) = delete;
  SyncedFile& operator=(const SyncedFile&) = delete;
  /// Throws nothing: what went wrong is remembered, and the rest is not written.
  void write(std::string_view content);
  /// DataError (path and the system's reason) when anything has gone wrong.
  void finish();

 private:
  std::filesystem::path path_;
  int descriptor_;
  int failure_ = 0;
};

/// Hands the file to `part`, a piece after the other. DataError when it cannot be read.
void read_in_parts(const std::filesystem::path& path, FunctionRef<void(std::string_view)> part);

/// Writes and syncs without the rename; for files inside a folder that is itself renamed into place.
void write_synced(const std::filesystem::path& path, std::string_view content);

/// The whole file; DataError when it cannot be read.
std::string read_file(const std::filesystem::path& path);

/// Makes renames and new names in `folder` durable.
void sync_folder(const std::filesystem::path& folder);

}  // namespace rubato
