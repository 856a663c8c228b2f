#include "rubato/io/record_file.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr std::uint64_t largest_record = std::uint64_t{1} << 30;

/// CRC-32C (Castagnoli), which the record format asks for; zlib's is another polynomial.
std::uint32_t crc32c(const std::string& bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82f63b78u : 0u);
      entries[i] = value;
    }
    return entries;
  }();
  std::uint32_t crc = ~0u;
  for (const unsigned char byte : bytes) crc = table[(crc ^ byte) & 0xff] ^ (crc >> 8);
  return ~crc;
}

/// A record stores its checksums rotated and offset, so that a checksum of checksums stays sound.
std::uint32_t masked(std::uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class Number>
std::string raw(Number value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

}  // namespace

RecordWriter::RecordWriter(const std::filesystem::path& path, Open how)
    : path_(path), file_(path, std::ios::binary | (how == Open::append ? std::ios::app : std::ios::trunc)) {
  if (!file_) throw DataError("cannot write " + path.string());
  std::error_code ignored;
  if (const auto size = std::filesystem::file_size(path, ignored); !ignored) size_ = size;
}

bool RecordWriter::write(const std::string& bytes) {
  if (failed_) return false;
  const std::string length = raw(static_cast<std::uint64_t>(bytes.size()));
  const std::string record = length + raw(masked(crc32c(length))) + bytes + raw(masked(crc32c(bytes)));
  file_ << record << std::flush;
  if (file_.good()) {
    size_ += record.size();
    return true;
  }
  failed_ = true;
  file_.close();
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path_, ignored)) std::filesystem::resize_file(path_, size_, ignored);
  return false;
}

RecordReader::RecordReader(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {
  if (!file_) throw DataError("cannot read " + path.string());
}

std::optional<std::string> RecordReader::next() {
  const std::uint64_t begin = position_;
  const auto read = [&](std::uint64_t size) {
    std::string bytes(size, 0);
    file_.read(bytes.data(), static_cast<std::streamsize>(size));
    bytes.resize(static_cast<std::size_t>(file_.gcount()));
    position_ += bytes.size();
    return bytes;
  };
  const auto read_checked = [&](std::uint64_t size) {
    const std::string bytes = read(size), crc = read(sizeof(std::uint32_t));
    if (bytes.size() < size || crc.size() < sizeof(std::uint32_t)) {
      throw DataError(fmt::format("{} is cut off in the record that begins at byte {}", path_.string(), begin));
    }
    if (crc != raw(masked(crc32c(bytes)))) {
      throw DataError(fmt::format("{} was changed or damaged in the record that begins at byte {}", path_.string(), begin));
    }
    return bytes;
  };
  if (file_.peek() == std::ifstream::traits_type::eof()) return std::nullopt;
  std::uint64_t size = 0;
  std::memcpy(&size, read_checked(sizeof size).data(), sizeof size);
  if (size > largest_record) {
    throw DataError(fmt::format("{} was changed or damaged in the record that begins at byte {}", path_.string(), begin));
  }
  return read_checked(size);
}

}  // namespace rubato
