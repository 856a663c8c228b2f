#include "rubato/train/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "rubato/core/error.h"

namespace rubato {
namespace {

[[noreturn]] void cannot(const char* verb, const std::filesystem::path& path) {
  throw DataError(std::string("cannot ") + verb + " " + path.string() + ": " + std::strerror(errno));
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }

 private:
  int number_;
};

}  // namespace

void write_synced(const std::filesystem::path& path, std::string_view content) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.get() < 0) cannot("write", path);
  while (!content.empty()) {
    const ssize_t written = ::write(file.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) cannot("write", path);
    content.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(file.get()) != 0) cannot("write", path);
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() >= 0) ::fsync(descriptor.get());
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

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) cannot("read", path);
  std::ostringstream content;
  content << file.rdbuf();
  if (file.bad()) cannot("read", path);
  return std::move(content).str();
}

}  // namespace rubato
