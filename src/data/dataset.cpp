#include "rubato/data/dataset.h"

#include <algorithm>
#include <cstdint>

#include "data/formats.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

const std::vector<DatasetEntry>& table() {
  static const std::vector<DatasetEntry> entries = {
      {"fashion-mnist",
       "/usr/share/datasets/fashion-mnist",
       "install Debian's package dataset-fashion-mnist, which puts it in /usr/share/datasets/fashion-mnist, or name "
       "its "
       "folder with --data-dir",
       10,
       {0.2860},
       {0.3530},
       {60000, 10000, 1, 28, 28},
       load_idx},
      {"mnist",
       "data/mnist",
       "put the four IDX files of MNIST there or name their folder with --data-dir",
       10,
       {0.1307},
       {0.3081},
       {60000, 10000, 1, 28, 28},
       load_idx},
      {"cifar10",
       "data/cifar10",
       "unpack the binary version of CIFAR-10 (cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html) "
       "there or name its folder with --data-dir",
       10,
       {0.4914, 0.4822, 0.4465},
       {0.2470, 0.2435, 0.2616},
       {50000, 10000, 3, 32, 32},
       load_cifar10},
      {"cifar100",
       "data/cifar100",
       "unpack the binary version of CIFAR-100 (cifar-100-binary.tar.gz of "
       "https://www.cs.toronto.edu/~kriz/cifar.html) "
       "there or name its folder with --data-dir",
       100,
       {0.5071, 0.4865, 0.4409},
       {0.2673, 0.2564, 0.2762},
       {50000, 10000, 3, 32, 32},
       load_cifar100},
      {"text",
       "/usr/lib/bible.data",
       "install Debian's package bible-kjv-text, which puts it in /usr/lib/bible.data, or name a text file with "
       "--data-dir",
       0,
       {},
       {},
       {},
       load_text},
  };
  return entries;
}

}  // namespace

std::vector<std::string> dataset_names() {
  std::vector<std::string> names;
  for (const DatasetEntry& entry : table()) names.push_back(entry.name);
  return names;
}

DataSplit load_dataset(const std::string& name, const std::string& directory, const TextOptions& text) {
  const auto entry = std::ranges::find(table(), name, &DatasetEntry::name);
  if (entry == table().end()) throw unknown_name("data set", name, dataset_names());
  return entry->load(*entry, directory.empty() ? entry->directory : directory, text);
}

DataSplit dry_run_dataset(const std::string& name) {
  const auto entry = std::ranges::find(table(), name, &DatasetEntry::name);
  if (entry == table().end()) throw unknown_name("data set", name, dataset_names());
  if (entry->shape.empty()) throw UsageError("data set '" + name + "' has no fixed shape: its files are needed");
  const auto split = [&](std::int64_t samples) {
    const auto& shape = entry->shape;  // memory that is never touched is never taken
    return image_dataset(*entry, torch::zeros({samples, shape[2], shape[3], shape[4]}, torch::kUInt8),
                         torch::zeros({samples}, torch::kInt64));
  };
  return {split(entry->shape[0]), split(entry->shape[1])};
}

void check_label(const std::filesystem::path& path, std::int64_t sample, std::int64_t label, std::int64_t classes) {
  if (label >= 0 && label < classes) return;
  throw DataError(path.string() + ": label " + std::to_string(label) + " of sample " + std::to_string(sample) +
                  " is outside 0.." + std::to_string(classes - 1) + "; the file is damaged or of another data set");
}

Dataset image_dataset(const DatasetEntry& entry, torch::Tensor images, torch::Tensor labels) {
  return {entry.name, std::move(images), std::move(labels), entry.classes, entry.mean, entry.deviation};
}

}  // namespace rubato
