#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace rubato {

/// Writes a TFRecord file: records of bytes, each with its length and two checksums (CRC-32C). Not thread-safe.
class RecordWriter {
 public:
  enum class Open { truncate, append };
  /// DataError when the file cannot be made.
  RecordWriter(const std::filesystem::path& path, Open how);
  /// False when the disk did not take the whole record. The file then ends with the record before it, and nothing more is
  /// written: a gap would make what follows unreadable, or something else than what was meant.
  bool write(const std::string& bytes);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
  std::uintmax_t size_ = 0;  ///< up to the last whole record
  bool failed_ = false;
};

/// Reads one. Not thread-safe.
class RecordReader {
 public:
  /// DataError when the file cannot be opened.
  explicit RecordReader(const std::filesystem::path& path);
  /// The next record, nothing at the end of the file. DataError where a record is cut off or was changed, with its byte.
  std::optional<std::string> next();

 private:
  std::filesystem::path path_;
  std::ifstream file_;
  std::uint64_t position_ = 0;
};

}  // namespace rubato
