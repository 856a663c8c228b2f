#include <cstdint>
#include <cstring>

#include "data/files.h"
#include "data/formats.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr std::int64_t side = 32, channels = 3, pixels = channels * side * side;

/// A record is `label_bytes` labels, the last of which is the one wanted, and then the pixels, channel by channel.
struct CifarLayout {
  const char* folder;
  std::vector<std::string> train, test;
  std::int64_t label_bytes;
  std::int64_t record() const { return label_bytes + pixels; }
};

std::vector<FileBytes> read_records(const DatasetFiles& entry, const CifarLayout& layout, const std::filesystem::path& directory,
                                    const std::vector<std::string>& names) {
  std::vector<FileBytes> files;
  for (const std::string& name : names) {
    files.push_back(read_bytes(find_file(directory, name, entry.how_to_get)));
    const FileBytes& file = files.back();
    require_whole(file);
    if (file.size() == 0 || file.size() % layout.record() != 0) {
      throw DataError(file.path.string() + ": expected a multiple of " + std::to_string(layout.record()) +
                      " bytes (labels and 3 x 32 x 32 pixels per sample), found " + std::to_string(file.size()) +
                      "; get the file again");
    }
  }
  return files;
}

Dataset load_cifar_part(const DatasetFiles& entry, const CifarLayout& layout, const std::filesystem::path& directory,
                        const std::vector<std::string>& names) {
  const std::vector<FileBytes> files = read_records(entry, layout, directory, names);
  std::int64_t count = 0;
  for (const FileBytes& file : files) count += file.size() / layout.record();
  torch::Tensor images = torch::empty({count, channels, side, side}, torch::kUInt8);
  torch::Tensor labels = torch::empty({count}, torch::kInt64);
  auto* image = images.data_ptr<std::uint8_t>();
  auto* label = labels.data_ptr<std::int64_t>();
  for (const FileBytes& file : files) {
    const std::int64_t records = file.size() / layout.record();
    for (std::int64_t i = 0; i < records; ++i, image += pixels, ++label) {
      const std::uint8_t* record = file.data() + i * layout.record();
      *label = record[layout.label_bytes - 1];
      check_label(file.path, i, *label, entry.classes);
      std::memcpy(image, record + layout.label_bytes, pixels);
    }
  }
  return image_dataset(entry, images, labels);
}

DataSplit load(const DatasetFiles& entry, const CifarLayout& layout, const std::filesystem::path& place) {
  const std::filesystem::path inside = place / layout.folder;
  std::error_code ignored;
  const std::filesystem::path directory = std::filesystem::is_directory(inside, ignored) ? inside : place;
  return {load_cifar_part(entry, layout, directory, layout.train), load_cifar_part(entry, layout, directory, layout.test)};
}

}  // namespace

DataSplit load_cifar10(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions&) {
  CifarLayout layout{"cifar-10-batches-bin", {}, {"test_batch.bin"}, 1};
  for (int i = 1; i <= 5; ++i) layout.train.push_back("data_batch_" + std::to_string(i) + ".bin");
  return load(entry, layout, place);
}

DataSplit load_cifar100(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions&) {
  // The first label is one of 20 coarse classes, the second one of the 100 fine ones.
  return load(entry, {"cifar-100-binary", {"train.bin"}, {"test.bin"}, 2}, place);
}

}  // namespace rubato
