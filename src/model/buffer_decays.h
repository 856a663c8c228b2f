#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <vector>

#include "rubato/tensor/tensor.h"

namespace rubato {

/// For each buffer of `module`, in the order of `named_buffers`: d, where a forward pass in training makes d r + (1 - d) s of a
/// running mean r, as batch norm and instance norm do with d = 1 - momentum. Not a number where no such d is known: of counters,
/// of modules of other kinds, and with cumulative means (no momentum), whose d changes.
std::vector<double> buffer_decays(const torch::nn::Module& module);

/// What a pass that read `read` and left `after` makes of `now`, which `missed` publications have led to since.
torch::Tensor merged(const torch::Tensor& now, const torch::Tensor& read, const torch::Tensor& after, double decay,
                     std::int64_t missed);

}  // namespace rubato
