#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

namespace rubato {

/// Names the random numbers of one trip of one batch through one block. The seed is the run's.
struct PassKey {
  std::uint64_t seed = 0;
  std::uint64_t batch = 0;
  std::uint64_t block = 0;
};

/// Makes `key` the source of random numbers for modules that run on this thread until destroyed; nests. `Stage` holds one
/// around each block's forward, so the same (seed, batch, block) always gives the same masks, in a replayed pass too.
class PassKeyScope {
 public:
  explicit PassKeyScope(PassKey key);
  ~PassKeyScope();
  PassKeyScope(const PassKeyScope&) = delete;
  PassKeyScope& operator=(const PassKeyScope&) = delete;

 private:
  PassKey key_;
  std::uint64_t draws_ = 0;
  PassKeyScope* outer_;
  friend torch::Generator next_pass_generator();
};

/// A fresh CPU generator for the next draw of the pass that runs on this thread; UsageError outside a PassKeyScope.
torch::Generator next_pass_generator();

/// Inverted dropout whose mask depends only on the PassKey and the order of draws in the block. Identity in evaluation mode.
class DropoutImpl : public torch::nn::Cloneable<DropoutImpl> {
 public:
  /// `probability` of setting an element to zero, in [0, 1).
  explicit DropoutImpl(double probability = 0.5);
  void reset() override {}
  torch::Tensor forward(const torch::Tensor& input);

 private:
  double probability_;
};
TORCH_MODULE(Dropout);

}  // namespace rubato
