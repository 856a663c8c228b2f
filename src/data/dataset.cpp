#include "rubato/data/dataset.h"

#include <cstdint>

#include "data/formats.h"
#include "rubato/core/error.h"
#include "rubato/core/registry.h"

namespace rubato {
namespace {

const std::vector<DatasetFiles>& table() {
  static const std::vector<DatasetFiles> entries = {
      {"fashion-mnist",
       "60,000 + 10,000 images of clothes, 28 x 28, 10 classes (Debian: dataset-fashion-mnist)",
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
       "60,000 + 10,000 handwritten digits, 28 x 28, IDX files",
       "data/mnist",
       "put the four IDX files of MNIST there or name their folder with --data-dir",
       10,
       {0.1307},
       {0.3081},
       {60000, 10000, 1, 28, 28},
       load_idx},
      {"cifar10",
       "50,000 + 10,000 colour images, 32 x 32, 10 classes, binary version",
       "data/cifar10",
       "unpack the binary version of CIFAR-10 (cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html) "
       "there or name its folder with --data-dir",
       10,
       {0.4914, 0.4822, 0.4465},
       {0.2470, 0.2435, 0.2616},
       {50000, 10000, 3, 32, 32},
       load_cifar10},
      {"cifar100",
       "50,000 + 10,000 colour images, 32 x 32, 100 classes, binary version",
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
       "characters of a text, --data-dir FILE.txt; the last tenth is the test split",
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

/// Memory that is never touched is never taken.
DataSplit blank(const DatasetFiles& files) {
  const auto split = [&](std::int64_t samples) {
    return image_dataset(files, torch::zeros({samples, files.shape[2], files.shape[3], files.shape[4]}, torch::kUInt8),
                         torch::zeros({samples}, torch::kInt64));
  };
  return {split(files.shape[0]), split(files.shape[1])};
}

Registry<DatasetEntry>& registry() {
  static Registry<DatasetEntry> all("data set", [] {
    std::vector<DatasetEntry> entries;
    for (const DatasetFiles& files : table()) {
      entries.push_back({.name = files.name,
                         .summary = files.summary + "; in " + files.directory + " or --data-dir",
                         .load = [&files](const std::string& directory, const DataOptions& options) {
                           return files.load(files, directory.empty() ? files.directory : directory, options);
                         }});
      if (files.shape.empty()) {
        entries.back().reads = {"sequence-length"};
      } else {
        entries.back().blank = [&files] { return blank(files); };
      }
    }
    return entries;
  }());
  return all;
}

}  // namespace

bool register_dataset(DatasetEntry entry) {
  return registry().add(std::move(entry));
}

std::vector<DatasetEntry> datasets() {
  return registry().all();
}

const DatasetEntry& find_dataset(const std::string& name) {
  return registry().find(name);
}

DataSplit load_dataset(const std::string& name, const std::string& directory, const DataOptions& options) {
  const DatasetEntry& entry = find_dataset(name);
  DataOptions completed = options;
  completed.values = completed_values(entry, options.values, {});
  return entry.load(directory, completed);
}

DataSplit dry_run_dataset(const std::string& name) {
  const DatasetEntry& entry = find_dataset(name);
  if (!entry.blank) throw UsageError("data set '" + name + "' has no fixed shape: its files are needed");
  return entry.blank();
}

void check_label(const std::filesystem::path& path, std::int64_t sample, std::int64_t label, std::int64_t classes) {
  if (label >= 0 && label < classes) return;
  throw DataError(path.string() + ": label " + std::to_string(label) + " of sample " + std::to_string(sample) +
                  " is outside 0.." + std::to_string(classes - 1) + "; the file is damaged or of another data set");
}

Dataset image_dataset(const DatasetFiles& entry, torch::Tensor images, torch::Tensor labels) {
  return {entry.name, std::move(images), std::move(labels), entry.classes, entry.mean, entry.deviation};
}

}  // namespace rubato
