#include "rubato/io/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr const char* lock_file = ".lock";

}  // namespace

FolderLock::FolderLock(std::filesystem::path folder) : folder_(std::move(folder)) {
  if (std::filesystem::exists(folder_ / lock_file)) take(O_RDWR);
}

void FolderLock::sign() {
  signed_ = Descriptor(::open(folder_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (descriptor_ < 0) take(O_RDWR | O_CREAT);
  if (descriptor_ < 0) return;
  const std::string me = std::to_string(::getpid()) + "\n";
  [[maybe_unused]] const bool told =
      ::ftruncate(descriptor_, 0) == 0 && ::pwrite(descriptor_, me.data(), me.size(), 0) == static_cast<ssize_t>(me.size());
}

void FolderLock::check() const {
  struct stat then = {}, now = {};
  if (!signed_.open() || ::fstat(signed_.number(), &then) != 0) return;
  const bool there = ::stat(folder_.c_str(), &now) == 0;
  if (there && then.st_dev == now.st_dev && then.st_ino == now.st_ino) return;
  throw DataError(fmt::format("the run folder {} has been {} while the run wrote it: the run ends here", folder_.string(),
                              there ? "replaced by another" : "removed or renamed"));
}

void FolderLock::take(int how) {
  const std::filesystem::path file = folder_ / lock_file;
  descriptor_ = ::open(file.c_str(), how | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw DataError(fmt::format("cannot write {}: {}", file.string(), std::strerror(errno)));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  const int reason = errno;
  ::close(std::exchange(descriptor_, -1));
  if (reason != EWOULDBLOCK) return;  // a file system without locks
  std::string holder;
  std::getline(std::ifstream(file), holder);
  throw UsageError(fmt::format("{} is being written by another run (process {}): wait for its end or stop it", folder_.string(),
                               holder.empty() ? "unknown" : holder));
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : folder_(std::move(other.folder_)), descriptor_(std::exchange(other.descriptor_, -1)), signed_(std::move(other.signed_)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(folder_, other.folder_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(signed_, other.signed_);
  return *this;
}

}  // namespace rubato
