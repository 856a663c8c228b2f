#include "rubato/wire/tensor_sum.h"

namespace rubato {

std::size_t TensorSum::bytes() const {
  std::size_t bytes = 0;
  for (const torch::Tensor& tensor : tensors) bytes += tensor.defined() ? tensor.nbytes() : 0;
  return bytes;
}

void TensorSum::add(const Summable& other) {
  torch::NoGradGuard no_grad;
  const auto& theirs = static_cast<const TensorSum&>(other).tensors;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    // Not in place: a gradient may share memory with another, and weights belong to a snapshot.
    if (tensors[i].defined()) tensors[i] = tensors[i] + theirs.at(i);
  }
  weight += static_cast<const TensorSum&>(other).weight;
}

}  // namespace rubato
