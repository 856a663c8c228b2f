#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "rubato/data/dataset.h"

namespace rubato {

/// What is known of the files of a data set.
struct DatasetFiles {
  std::string name;
  std::string summary;
  std::string directory;   ///< where it is looked for when the user names no place
  std::string how_to_get;  ///< end of the sentence "... not found; "
  std::int64_t classes;    ///< 0: found out from the text
  std::vector<double> mean, deviation;
  std::vector<std::int64_t> shape;  ///< images: samples for training, samples for tests, channels, height, width; empty: text
  DataSplit (*load)(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions& options);
};

/// IDX files of MNIST and its relatives: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., plain or gzip.
DataSplit load_idx(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions& options);

/// CIFAR's binary version; `place` holds the files themselves or the folder that the archive unpacks to.
DataSplit load_cifar10(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions& options);
DataSplit load_cifar100(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions& options);

/// A text as characters: see text.cpp.
DataSplit load_text(const DatasetFiles& entry, const std::filesystem::path& place, const DataOptions& options);

/// DataError unless 0 <= label < classes.
void check_label(const std::filesystem::path& path, std::int64_t sample, std::int64_t label, std::int64_t classes);

/// An image data set with everything that `entry` says about it.
Dataset image_dataset(const DatasetFiles& entry, torch::Tensor images, torch::Tensor labels);

}  // namespace rubato
