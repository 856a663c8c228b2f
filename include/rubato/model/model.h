#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>
#include <vector>

namespace rubato {

/// The smallest part of a model whose weights are versioned together: a module from one tensor to one tensor.
/// The module is a prototype: it holds the initial weights and is cloned for every pass in flight, never run itself, so it must
/// be `torch::nn::Cloneable`.
struct Block {
  std::string name;  ///< unique in the model; prefixes the names of its tensors in a checkpoint
  torch::nn::AnyModule module;
};

/// Maps (output of the last block, targets) to a scalar: the mean loss of the batch.
using LossFunction = std::function<torch::Tensor(const torch::Tensor& output, const torch::Tensor& target)>;

/// An ordered list of blocks and what to minimise. Block i+1 takes what block i returns.
struct Model {
  std::string name;
  std::vector<Block> blocks;
  LossFunction loss;
};

/// Mean cross-entropy. Output N x classes with targets N, or N x length x classes with targets N x length; targets int64.
torch::Tensor cross_entropy(const torch::Tensor& output, const torch::Tensor& target);

/// Every child of `sequential` becomes a block named after it ("0", "1", ... unless named otherwise). A `torch::nn::Dropout`
/// child is replaced by `rubato::Dropout`, which draws from a stream of its own; one hidden deeper is refused with UsageError,
/// because libtorch's draws from one global generator and no run could be repeated.
Model model_from(torch::nn::Sequential sequential, LossFunction loss = cross_entropy);

/// The same from a list of named modules.
Model model_from(std::vector<Block> blocks, LossFunction loss = cross_entropy);

}  // namespace rubato
