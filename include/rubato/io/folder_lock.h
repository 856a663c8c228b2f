#pragma once

#include <filesystem>

namespace rubato {

/// Whoever writes into a run folder holds this, so that two runs never write into one. The system lets go of it when the process
/// ends, however it ends.
class FolderLock {
 public:
  FolderLock() = default;
  /// UsageError when another process holds the folder, DataError when the lock cannot be made.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;

 private:
  int descriptor_ = -1;
};

}  // namespace rubato
