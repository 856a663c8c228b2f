#pragma once

#include <vector>

#include "rubato/context/message.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// Weights or gradients of a range of blocks that are summed over replicas; undefined tensors stay undefined.
struct TensorSum final : Summable {
  std::vector<torch::Tensor> tensors;
  std::size_t bytes() const override;
  void add(const Summable& other) override;
};

}  // namespace rubato
