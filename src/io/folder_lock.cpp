#include "rubato/io/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "rubato/core/error.h"

namespace rubato {

FolderLock::FolderLock(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / ".lock";
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw DataError(fmt::format("cannot write {}: {}", file.string(), std::strerror(errno)));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    ::close(std::exchange(descriptor_, -1));
    if (reason != EWOULDBLOCK) return;  // a file system without locks
    std::string holder;
    std::getline(std::ifstream(file), holder);
    throw UsageError(fmt::format("{} is being written by another run (process {}): wait for its end or stop it", folder.string(),
                                 holder.empty() ? "unknown" : holder));
  }
  const std::string me = std::to_string(::getpid()) + "\n";
  [[maybe_unused]] const bool told =
      ::ftruncate(descriptor_, 0) == 0 && ::write(descriptor_, me.data(), me.size()) == static_cast<ssize_t>(me.size());
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FolderLock::FolderLock(FolderLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

}  // namespace rubato
