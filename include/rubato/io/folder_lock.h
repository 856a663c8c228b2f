#pragma once

#include <filesystem>

namespace rubato {

/// Whoever writes into a run folder holds this, so that two runs never write into one. The system lets go of it when the process
/// ends, however it ends.
class FolderLock {
 public:
  FolderLock() = default;
  /// Holds the folder, if it has been written before. Nothing is written. UsageError when another process holds it, DataError
  /// when the lock cannot be opened.
  explicit FolderLock(std::filesystem::path folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;

  /// Holds the folder, which exists, and says in `.lock` which process writes it. Errors as above.
  void sign();

 private:
  void take(int how);

  std::filesystem::path folder_;
  int descriptor_ = -1;
};

}  // namespace rubato
