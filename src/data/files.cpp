#include "data/files.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "rubato/core/error.h"
#include "rubato/core/read_file.h"

namespace rubato {
namespace {

struct GzipCloser {
  void operator()(gzFile file) const { gzclose_r(file); }
};
using GzipFile = std::unique_ptr<gzFile_s, GzipCloser>;

/// zlib reports errors of the operating system as Z_ERRNO and leaves the reason in errno.
std::string reason(int code, const char* message) {
  return code == Z_ERRNO ? std::strerror(errno) : message;
}

GzipFile open_file(const std::filesystem::path& path) {
  errno = 0;
  GzipFile file(gzopen(path.c_str(), "rb"));
  if (!file) {
    const std::string why = errno != 0 ? std::strerror(errno) : "out of memory";
    throw DataError(path.string() + ": cannot be opened (" + why + "); check the path and its permissions");
  }
  gzbuffer(file.get(), 1 << 18);
  return file;
}

}  // namespace

std::filesystem::path find_file(const std::filesystem::path& directory, const std::string& name, const std::string& how_to_get) {
  const std::filesystem::path plain = directory / name;
  const std::filesystem::path compressed = directory / (name + ".gz");
  for (const auto& path : {plain, compressed}) {
    if (const auto why = hidden_by(path)) throw DataError(path.string() + ": " + *why + "; check the path and its permissions");
    if (std::filesystem::is_regular_file(path)) return path;
  }
  throw DataError(plain.string() + ": not found, neither plain nor with .gz; " + how_to_get);
}

FileBytes read_bytes(const std::filesystem::path& path) {
  const GzipFile file = open_file(path);
  FileBytes result{path, std::make_shared<std::vector<std::uint8_t>>(), false};
  std::vector<std::uint8_t>& bytes = *result.bytes;
  std::size_t filled = 0;
  for (int count = 1; count > 0; filled += static_cast<std::size_t>(std::max(count, 0))) {
    if (filled == bytes.size()) bytes.resize(std::max<std::size_t>(1 << 20, 2 * filled));
    const auto room = static_cast<unsigned>(std::min<std::size_t>(bytes.size() - filled, 1 << 30));
    count = gzread(file.get(), bytes.data() + filled, room);
  }
  bytes.resize(filled);

  int code = Z_OK;
  const char* message = gzerror(file.get(), &code);
  result.cut_off = code == Z_BUF_ERROR;
  if (code != Z_OK && !result.cut_off) {
    throw DataError(path.string() + ": damaged after " + std::to_string(filled) + " bytes (" + reason(code, message) +
                    "); get the file again");
  }
  return result;
}

void require_whole(const FileBytes& file) {
  if (!file.cut_off) return;
  throw DataError(file.path.string() + ": the gzip data stops after " + std::to_string(file.size()) +
                  " bytes, before its end mark; get the file again");
}

}  // namespace rubato
