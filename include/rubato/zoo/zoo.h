#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rubato/model/model.h"

namespace rubato {

/// What a ready-made model is built for. Shapes follow from the data set.
struct ZooOptions {
  std::string model = "resnet8";
  std::int64_t classes = 10;          ///< output classes; text: size of the vocabulary
  std::int64_t channels = 1;          ///< image channels; ignored for text
  std::int64_t image_size = 28;       ///< height and width in pixels; ignored for text
  std::int64_t sequence_length = 64;  ///< text only
  std::int64_t width = 0;             ///< base width: channels of the first stage, hidden units; 0: the model's own
  double dropout = -1;                ///< probability where the model has dropout; -1: the model's own
  std::uint64_t seed = 1;             ///< initial weights are a function of (seed, model, sizes)
};

/// One row of `rubato list models`.
struct ZooEntry {
  std::string name;
  std::string summary;  ///< one line: structure and source
  bool text;            ///< takes int64 tokens N x length instead of images
};

const std::vector<ZooEntry>& zoo();

/// Throws UsageError for an unknown name (with the nearest known one) or sizes the model cannot take.
Model make_model(const ZooOptions& options);

}  // namespace rubato
