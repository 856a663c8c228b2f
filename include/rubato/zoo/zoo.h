#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "rubato/core/option_values.h"
#include "rubato/model/model.h"

namespace rubato {

/// What a model is made for. Shapes follow from the data set.
struct ZooOptions {
  std::string model = "resnet8";
  std::int64_t classes = 10;          ///< output classes; text: size of the vocabulary
  std::int64_t channels = 1;          ///< image channels; ignored for text
  std::int64_t image_size = 28;       ///< height and width in pixels; ignored for text
  std::int64_t sequence_length = 64;  ///< text only
  std::int64_t width = 0;             ///< base width: channels of the first stage, hidden units; 0: the model's own
  double dropout = -1;                ///< probability where the model has dropout; -1: the model's own
  std::uint64_t seed = 1;             ///< initial weights are a function of (seed, model, sizes)
  OptionValues values = {};           ///< of the entry's own options
};

/// One row of `rubato list models`.
struct ModelEntry {
  std::string name;
  std::string summary;  ///< one line: structure and source
  bool text = false;    ///< takes int64 tokens N x length instead of images
  /// With values for all of `options`. UsageError for sizes that it cannot take.
  std::function<Model(const ZooOptions&)> make;
  /// Options of all models that it reads: width, dropout. Where it does not, they are refused.
  std::vector<std::string> reads = {};
  /// Options of its own; for another model they are refused.
  std::vector<OptionSpec> options = {};
  CompleteOptions complete = {};
  CheckOptions check = {};
};

/// Adds a model to those that there are, before a run that is to know it. Returns true, so that a static object can be made of
/// the call. std::logic_error for a name that is taken; see `Registry`. From any thread.
bool register_model(ModelEntry entry);
/// Those that come along, then those that were registered.
std::vector<ModelEntry> models();
/// Valid to the end of the program. Throws UsageError with the nearest known name.
const ModelEntry& find_model(const std::string& name);

/// Throws UsageError for an unknown name (with the nearest known one) or sizes the model cannot take.
Model make_model(const ZooOptions& options);

}  // namespace rubato
