#include <array>
#include <cstdint>
#include <cstdio>

#include "data/files.h"
#include "data/formats.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr std::int64_t magic_of_bytes = 0x0800;  ///< plus the number of dimensions

std::int64_t big_endian(const std::uint8_t* bytes) {
  return std::int64_t{bytes[0]} << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

std::string hexadecimal(std::int64_t number) {
  std::array<char, 24> text;
  std::snprintf(text.data(), text.size(), "0x%08llx", static_cast<unsigned long long>(number));
  return text.data();
}

std::string described(const std::vector<std::int64_t>& shape) {
  const std::string count = std::to_string(shape[0]);
  if (shape.size() == 1) return count + " labels";
  return count + " images of " + std::to_string(shape[1]) + " x " + std::to_string(shape[2]);
}

void check_magic(const FileBytes& file, int dimensions) {
  const std::int64_t header = 4 + 4 * dimensions;
  if (static_cast<std::int64_t>(file.size()) < header) {
    throw DataError(file.path.string() + ": expected at least " + std::to_string(header) + " bytes for the IDX header, found " +
                    std::to_string(file.size()) + "; get the file again");
  }
  const std::int64_t found = big_endian(file.data()), expected = magic_of_bytes + dimensions;
  if (found == expected) return;
  throw DataError(file.path.string() + ": expected the IDX magic number " + hexadecimal(expected) + " (bytes, " +
                  std::to_string(dimensions) + " dimensions), found " + hexadecimal(found) +
                  "; check that the file is what its name says");
}

/// The bound on each side keeps the product of all sizes within 64 bits, whatever a damaged header says.
std::vector<std::int64_t> checked_shape(const FileBytes& file, int dimensions) {
  constexpr std::int64_t largest_side = 1 << 15;
  std::vector<std::int64_t> shape;
  for (int i = 0; i < dimensions; ++i) {
    const std::int64_t size = big_endian(file.data() + 4 + 4 * i);
    if (size < 1 || (i > 0 && size > largest_side)) {
      throw DataError(file.path.string() + ": size " + std::to_string(size) + " of dimension " + std::to_string(i) +
                      " is outside 1.." + std::to_string(i > 0 ? largest_side : 0xffffffff) +
                      "; the header is damaged, get the file again");
    }
    shape.push_back(size);
  }
  return shape;
}

/// uint8 of the shape that the header gives; points into the bytes read.
torch::Tensor read_idx(const std::filesystem::path& path, int dimensions) {
  const FileBytes file = read_bytes(path);
  check_magic(file, dimensions);
  const std::vector<std::int64_t> shape = checked_shape(file, dimensions);
  std::int64_t expected = 1;
  for (const std::int64_t size : shape) expected *= size;
  const std::int64_t header = 4 + 4 * dimensions;
  expected += header;
  if (static_cast<std::int64_t>(file.size()) != expected) {
    throw DataError(path.string() + ": expected " + std::to_string(expected) + " bytes for " + described(shape) + ", found " +
                    std::to_string(file.size()) + "; get the file again");
  }
  require_whole(file);
  return torch::from_blob(
      file.bytes->data() + header, shape, [bytes = file.bytes](void*) {}, torch::kUInt8);
}

Dataset load_idx_part(const DatasetFiles& entry, const std::filesystem::path& directory, const std::string& part) {
  const auto images_path = find_file(directory, part + "-images-idx3-ubyte", entry.how_to_get);
  const auto labels_path = find_file(directory, part + "-labels-idx1-ubyte", entry.how_to_get);
  const torch::Tensor images = read_idx(images_path, 3);
  const torch::Tensor labels = read_idx(labels_path, 1);
  const std::int64_t count = labels.size(0);
  if (images.size(0) != count) {
    throw DataError(images_path.string() + " holds " + std::to_string(images.size(0)) + " images, but " + labels_path.string() +
                    " holds " + std::to_string(count) + " labels; get both files from the same source");
  }
  const auto* raw = labels.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < count; ++i) check_label(labels_path, i, raw[i], entry.classes);
  return image_dataset(entry, images.unsqueeze(1), labels.to(torch::kInt64));
}

}  // namespace

DataSplit load_idx(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions&) {
  return {load_idx_part(entry, place, "train"), load_idx_part(entry, place, "t10k")};
}

}  // namespace rubato
