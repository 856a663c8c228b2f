#pragma once

#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/sequential.h>

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "rubato/model/task.h"

namespace rubato {

/// The smallest part of a model whose weights are versioned together: a module from one tensor to one tensor.
/// The module is a prototype: it holds the initial weights and is cloned for every pass in flight, never run itself, so it must
/// be `torch::nn::Cloneable`.
struct Block {
  std::string name;  ///< unique in the model; prefixes the names of its tensors in a checkpoint
  torch::nn::AnyModule module;
};

/// An ordered list of blocks and what they are trained for. Block i+1 takes what block i returns.
struct Model {
  std::string name;
  std::vector<Block> blocks;
  Task task;
};

/// Every child of `sequential` becomes a block named after it ("0", "1", ... unless named otherwise). A `torch::nn::Dropout`
/// child is replaced by `rubato::Dropout`, which draws from a stream of its own; one hidden deeper is refused with UsageError,
/// because libtorch's draws from one global generator and no run could be repeated.
Model model_from(torch::nn::Sequential sequential, Task task = classification());

/// The same from a list of named modules.
Model model_from(std::vector<Block> blocks, Task task = classification());
/// For blocks in braces, which newer compilers could also take for the children of a Sequential.
inline Model model_from(std::initializer_list<Block> blocks, Task task = classification()) {
  return model_from(std::vector<Block>(blocks), std::move(task));
}

/// With a loss of one's own, which alone does not say what is right: no accuracy is reported.
Model model_from(torch::nn::Sequential sequential, LossFunction loss);
Model model_from(std::vector<Block> blocks, LossFunction loss);
inline Model model_from(std::initializer_list<Block> blocks, LossFunction loss) {
  return model_from(std::vector<Block>(blocks), std::move(loss));
}

}  // namespace rubato
