#include "rubato/io/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "rubato/core/error.h"
#include "rubato/core/read_file.h"

namespace rubato {
namespace {

[[noreturn]] void cannot(const char* verb, const std::filesystem::path& path) {
  throw DataError(std::string("cannot ") + verb + " " + path.string() + ": " + std::strerror(errno));
}

}  // namespace

SyncedFile::SyncedFile(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) cannot("write", path_);
}

SyncedFile::~SyncedFile() {
  ::close(descriptor_);
}

void SyncedFile::write(std::string_view content) {
  while (failure_ == 0 && !content.empty()) {
    const ssize_t written = ::write(descriptor_, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      failure_ = errno;
    } else {
      content.remove_prefix(static_cast<std::size_t>(written));
    }
  }
}

void SyncedFile::finish() {
  if (failure_ == 0 && ::fsync(descriptor_) != 0) failure_ = errno;
  if (failure_ == 0) return;
  errno = failure_;
  cannot("write", path_);
}

void write_synced(const std::filesystem::path& path, std::string_view content) {
  SyncedFile file(path);
  file.write(content);
  file.finish();
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

void write_atomically(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path draft = path.string() + ".tmp";
  try {
    write_synced(draft, content);
  } catch (const DataError&) {
    std::error_code ignored;
    std::filesystem::remove(draft, ignored);
    throw;
  }
  if (::rename(draft.c_str(), path.c_str()) != 0) cannot("replace", path);
  sync_folder(path.parent_path());
}

void read_in_parts(const std::filesystem::path& path, FunctionRef<void(std::string_view)> part) {
  std::ifstream file(path, std::ios::binary);
  if (!file) cannot("read", path);
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0) {
    part({buffer.data(), static_cast<std::size_t>(file.gcount())});
  }
  if (file.bad()) cannot("read", path);
}

std::string read_file(const std::filesystem::path& path) {
  return whole_file(path);
}

}  // namespace rubato
