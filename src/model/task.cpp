#include "rubato/model/task.h"

#include <cstdint>

#include <torch/torch.h>

#include <vector>

#include "rubato/core/error.h"

namespace rubato {
namespace {

std::string shape_of(const torch::Tensor& tensor) {
  std::vector<std::string> sizes;
  for (const std::int64_t size : tensor.sizes()) sizes.push_back(std::to_string(size));
  return "[" + join(sizes) + "]";
}

[[noreturn]] void refuse(const std::string& who, const torch::Tensor& output, const torch::Tensor& target,
                         const std::string& why) {
  throw UsageError(who + " got output " + shape_of(output) + " and target " + shape_of(target) + "; " + why);
}

Counted counted(const torch::Tensor& right) {
  return {right.sum().item<std::int64_t>(), right.numel()};
}

/// The sizes of `output` without the dimension of its classes.
bool fits(const torch::Tensor& output, const torch::Tensor& target, std::int64_t classes) {
  if (output.dim() < 2) return false;
  std::vector<std::int64_t> positions = output.sizes().vec();
  positions.erase(positions.begin() + classes);
  return target.sizes() == torch::IntArrayRef(positions);
}

torch::Tensor cross_entropy_at_1(const torch::Tensor& output, const torch::Tensor& target) {
  if (!fits(output, target, 1)) {
    refuse(
        "classification", output, target,
        "the target must have the output's shape without dimension 1, the classes; use language_modelling() where they are last");
  }
  return torch::nn::functional::cross_entropy(output, target);
}

/// One logit for each target, in the targets' shape.
torch::Tensor logits(const torch::Tensor& output, const torch::Tensor& target) {
  if (output.sizes() == target.sizes()) return output;
  for (const std::int64_t extra : {std::int64_t{1}, output.dim() - 1}) {
    if (output.dim() == target.dim() + 1 && output.size(extra) == 1 && fits(output, target, extra)) return output.squeeze(extra);
  }
  refuse("binary classification", output, target, "there must be one logit for each target");
}

}  // namespace

torch::Tensor cross_entropy(const torch::Tensor& output, const torch::Tensor& target) {
  if (!fits(output, target, output.dim() - 1)) {
    refuse("cross-entropy", output, target, "the target must have the output's shape without its last dimension, the classes");
  }
  return torch::nn::functional::cross_entropy(output.flatten(0, -2), target.flatten());
}

Task classification() {
  return {"classification", cross_entropy_at_1,
          [](const torch::Tensor& output, const torch::Tensor& target) { return counted(output.argmax(1).eq(target)); }};
}

Task language_modelling() {
  return {"language modelling", cross_entropy,
          [](const torch::Tensor& output, const torch::Tensor& target) { return counted(output.argmax(-1).eq(target)); }};
}

Task binary_classification() {
  return {"binary classification",
          [](const torch::Tensor& output, const torch::Tensor& target) {
            return torch::binary_cross_entropy_with_logits(logits(output, target), target.to(output.scalar_type()));
          },
          [](const torch::Tensor& output, const torch::Tensor& target) {
            return counted(logits(output, target).gt(0).eq(target.gt(0)));
          }};
}

}  // namespace rubato
