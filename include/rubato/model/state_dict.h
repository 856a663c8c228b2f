#pragma once

#include <istream>
#include <string>
#include <utility>
#include <vector>

#include "rubato/tensor/tensor.h"

namespace rubato {

/// In the order of the file.
using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

/// The bytes of a file that `torch.load(path)` of every PyTorch since 1.6 opens with its defaults, `weights_only=True` included:
/// a dictionary of dense tensors by name. UsageError for a type that `torch.save` had no storage class for in 1.13.
std::string state_dict_bytes(const NamedTensors& tensors);

/// What `torch.save(model.state_dict(), path)` of any PyTorch wrote, or `state_dict_bytes`, or rubato 0.1.0; tensors may share
/// memory. Nothing in the file is run. `name` is what the file is called in messages. DataError for anything else.
NamedTensors read_state_dict(std::istream& file, const std::string& name);

}  // namespace rubato
