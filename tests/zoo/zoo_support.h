#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include <cstdint>
#include <ostream>

#include "rubato/model/dropout.h"
#include "rubato/zoo/zoo.h"

namespace rubato {

/// How GoogleTest shows a row; its own way, bytes with addresses, differs from run to run.
inline void PrintTo(const ModelEntry& entry, std::ostream* out) {
  *out << entry.name;
}

/// Sizes at which a forward pass of the model takes milliseconds.
inline ZooOptions small_options(const ModelEntry& entry) {
  ZooOptions options{.model = entry.name, .classes = 7, .channels = 3, .image_size = 8};
  if (entry.name == "lenet") options.image_size = 12;
  if (entry.name == "easgd-cifar") options.image_size = 28;
  if (entry.name == "easgd-cifar" || entry.name.starts_with("wrn")) options.width = 8;
  if (entry.text) options.width = 16;
  options.sequence_length = 9;
  return options;
}

inline torch::Generator test_generator(std::uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

inline torch::Tensor small_input(const ZooOptions& options, bool text, std::uint64_t seed = 1) {
  if (text) {
    return torch::randint(0, options.classes, {4, options.sequence_length}, test_generator(seed), torch::kInt64);
  }
  return torch::empty({4, options.channels, options.image_size, options.image_size}).normal_(0, 1, test_generator(seed));
}

/// Runs the prototypes themselves, as one pass of batch 0.
inline torch::Tensor run(Model& model, torch::Tensor value) {
  for (std::uint64_t block = 0; block < model.blocks.size(); ++block) {
    const PassKeyScope scope({1, 0, block});
    value = model.blocks[block].module.forward(value);
  }
  return value;
}

inline std::vector<torch::Tensor> parameters_of(const Model& model) {
  std::vector<torch::Tensor> all;
  for (const Block& block : model.blocks) {
    for (const torch::Tensor& parameter : block.module.ptr()->parameters()) all.push_back(parameter);
  }
  return all;
}

inline std::int64_t parameter_count(const Model& model) {
  std::int64_t count = 0;
  for (const torch::Tensor& parameter : parameters_of(model)) count += parameter.numel();
  return count;
}

}  // namespace rubato
