#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rubato/tensor/tensor.h"

namespace rubato {

/// Samples held in memory in the form in which they lie on disk; turned into floats batch by batch.
struct Dataset {
  std::string name;
  /// Images: uint8, N x channels x height x width. Text: int64, N x length (token ids).
  torch::Tensor inputs;
  /// Images: int64, N, or N x positions where the model's task has several for each. Text: int64, N x length (the inputs shifted
  /// by one).
  torch::Tensor targets;
  std::int64_t classes = 0;
  /// Per channel, of pixels scaled to [0, 1]; empty for text.
  std::vector<double> mean, deviation;
  /// Text: the character that each token stands for, in order of the tokens; empty for images.
  std::string vocabulary = {};

  std::int64_t size() const { return inputs.size(0); }
  bool is_text() const { return inputs.scalar_type() == torch::kLong; }
};

struct DataSplit {
  Dataset train, test;
};

/// How a text becomes samples.
struct TextOptions {
  std::int64_t sequence_length = 64;  ///< characters of a sample, >= 1
  /// As `Dataset::vocabulary`: of the text that a model was trained on. Nothing: that of the text itself.
  std::optional<std::string> vocabulary = std::nullopt;
};

/// Names that `load_dataset` knows: fashion-mnist, mnist, cifar10, cifar100, text.
std::vector<std::string> dataset_names();

/// Reads `name` from `directory`. Empty: /usr/share/datasets/fashion-mnist, where Debian's dataset-fashion-mnist puts
/// it; /usr/lib/bible.data of Debian's bible-kjv-text for "text"; else data/NAME below the working directory. For
/// "text" `directory` may also name one file; its last tenth is the test split. Throws UsageError for an unknown name, DataError
/// (which file, expected and found) for missing, truncated or wrong files and for characters that are not in a given vocabulary.
DataSplit load_dataset(const std::string& name, const std::string& directory, const TextOptions& text = {});

/// An image data set of the right shapes whose samples are all 0, made without its files: for runs that compute nothing.
/// UsageError for an unknown name and for text, whose shape is that of its file.
DataSplit dry_run_dataset(const std::string& name);

}  // namespace rubato
