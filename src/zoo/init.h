#pragma once

#include <cstdint>
#include <vector>

#include "rubato/model/model.h"

namespace rubato::zoo_detail {

/// How weights are drawn. Norms start at scale 1 and shift 0, whatever the scheme; embeddings at N(0, 1), under
/// `gaussian` at N(0, 0.02^2).
enum class InitScheme {
  torch_default,  ///< weights and biases uniform in +-1/sqrt(fan in), as PyTorch's layers; LSTM: +-1/sqrt(hidden units)
  zero_bias,      ///< the same weights, biases 0 (EASGD, Zhang et al. 2015, section 5)
  he_normal,      ///< convolutions N(0, 2 / (k k out)) without PyTorch's gain (He et al. 2015); the rest torch_default
  as_built,       ///< what the modules' constructors, which draw nothing, put there
  gaussian,       ///< linear weights N(0, 0.02^2), biases 0 (GPT)
};

/// Overwrites every parameter of `blocks`, each from a generator keyed by (seed, index of the block, index of the
/// parameter in it): what the modules' constructors drew from libtorch's global generator leaves no trace.
void initialise(const std::vector<Block>& blocks, InitScheme scheme, std::uint64_t seed);

}  // namespace rubato::zoo_detail
