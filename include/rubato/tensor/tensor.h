#pragma once

#include <ATen/core/Tensor.h>

/// `torch::Tensor` and what it is made of, for headers: a tenth of the time of <torch/torch.h>. Sources that compute include
/// that.

namespace at {
using namespace c10;
}
namespace torch {
using namespace at;  // as libtorch's own headers have it
}

namespace torch::serialize {
class InputArchive;
class OutputArchive;
}  // namespace torch::serialize

namespace torch::optim {
class Optimizer;
}
