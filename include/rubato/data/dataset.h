#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "rubato/core/option_values.h"
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

/// How data becomes samples.
struct DataOptions {
  std::int64_t sequence_length = 64;  ///< text: characters of a sample, >= 1
  /// As `Dataset::vocabulary`: of the text that a model was trained on. Nothing: that of the text itself.
  std::optional<std::string> vocabulary = std::nullopt;
  OptionValues values = {};  ///< of the entry's own options
};

/// One row of `rubato list datasets`.
struct DatasetEntry {
  std::string name;
  std::string summary;  ///< one line: samples, shape, classes
  /// Reads it from `directory`, which is empty where the user names none; with values for all of `options`. DataError for what
  /// cannot be read.
  std::function<DataSplit(const std::string& directory, const DataOptions&)> load;
  /// The same shapes with samples that are all 0, made without files: for runs that compute nothing. Null: the shapes are those
  /// of the files.
  std::function<DataSplit()> blank = nullptr;
  /// Options of all data sets that it reads, of augment, memory-format (images) and sequence-length (text). Where it does not,
  /// they are refused.
  std::vector<std::string> reads = {"augment", "memory-format"};
  /// Options of its own; for another data set they are refused.
  std::vector<OptionSpec> options = {};
  CompleteOptions complete = {};
  CheckOptions check = {};
};

/// Adds a data set to those that there are, before a run that is to know it. Returns true, so that a static object can be made of
/// the call. std::logic_error for a name that is taken; see `Registry`. From any thread.
bool register_dataset(DatasetEntry entry);
/// Those that come along, then those that were registered.
std::vector<DatasetEntry> datasets();
/// Valid to the end of the program. Throws UsageError with the nearest known name.
const DatasetEntry& find_dataset(const std::string& name);

/// Reads `name` from `directory`. Empty: /usr/share/datasets/fashion-mnist, where Debian's dataset-fashion-mnist puts
/// it; /usr/lib/bible.data of Debian's bible-kjv-text for "text"; else data/NAME below the working directory. For
/// "text" `directory` may also name one file; its last tenth is the test split. Throws UsageError for an unknown name, DataError
/// (which file, expected and found) for missing, truncated or wrong files and for characters that are not in a given vocabulary.
DataSplit load_dataset(const std::string& name, const std::string& directory, const DataOptions& options = {});

/// An image data set of the right shapes whose samples are all 0, made without its files: for runs that compute nothing.
/// UsageError for an unknown name and where the shape is that of the files.
DataSplit dry_run_dataset(const std::string& name);

}  // namespace rubato
