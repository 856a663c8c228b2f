#pragma once

#include <filesystem>

#include "rubato/io/descriptor.h"

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

  /// DataError when the folder that was signed is no longer the one of its name: what is written there now would be lost, or lie
  /// in a folder of somebody else.
  void check() const;

 private:
  void take(int how);

  std::filesystem::path folder_;
  int descriptor_ = -1;
  Descriptor signed_;  ///< the folder itself, whatever its name is now
};

}  // namespace rubato
