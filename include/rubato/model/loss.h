#pragma once

#include <functional>

#include "rubato/tensor/tensor.h"

namespace rubato {

/// Maps (output of the last block, targets) to a scalar: the mean loss of the batch.
using LossFunction = std::function<torch::Tensor(const torch::Tensor& output, const torch::Tensor& target)>;

/// Mean cross-entropy with the classes last. Output N x classes with targets N, or N x length x classes with targets N x length;
/// targets int64.
torch::Tensor cross_entropy(const torch::Tensor& output, const torch::Tensor& target);

}  // namespace rubato
