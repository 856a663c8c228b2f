#pragma once

#include <vector>

#include "rubato/context/message.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// Weights or gradients of a range of blocks that are summed over replicas; undefined tensors stay undefined.
struct TensorSum final : Summable {
  std::vector<torch::Tensor> tensors;
  /// What each part counts for, summed as well: 1, or a batch's samples in full batches. The mean is tensors / weight. Not in
  /// `bytes`: it travels in the message's head. Single precision, because processes sum it with the tensors.
  float weight = 1;
  std::size_t bytes() const override;
  void add(const Summable& other) override;
};

}  // namespace rubato
