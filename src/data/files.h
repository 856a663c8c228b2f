#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace rubato {

/// What a file holds, decompressed. Shared, so that tensors can point into it instead of copying it.
struct FileBytes {
  std::filesystem::path path;
  std::shared_ptr<std::vector<std::uint8_t>> bytes;
  bool cut_off = false;  ///< gzip data without its end mark; `bytes` holds what came before the cut

  std::size_t size() const { return bytes->size(); }
  const std::uint8_t* data() const { return bytes->data(); }
};

/// `name`, or else `name`.gz, in `directory`. DataError that ends with `how_to_get` if neither is there.
std::filesystem::path find_file(const std::filesystem::path& directory, const std::string& name, const std::string& how_to_get);

/// Reads a plain or gzip file. DataError if it cannot be opened or its gzip data is damaged.
FileBytes read_bytes(const std::filesystem::path& path);

/// DataError if `file` was cut off. Called after checks that can tell the expected size.
void require_whole(const FileBytes& file);

}  // namespace rubato
