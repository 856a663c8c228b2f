#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rubato/model/digest.h"
#include "rubato/model/dropout.h"
#include "support/lab.h"

namespace rubato::test {

/// One stage in plain libtorch on one thread, without snapshots, pools or messages: what the oracles of the staged methods are
/// made of.
class OracleModule {
 public:
  /// One trip of one batch. It keeps a copy of the weights, so that later steps leave its graph alone.
  struct Trip {
    std::int64_t batch = -1;
    torch::Tensor input, output;
    std::vector<torch::nn::AnyModule> blocks;
  };

  OracleModule(const Model& model, BlockRange range, const StoreOptions& store, std::uint64_t seed);
  /// With the weights of now. `keep_statistics`: what batch norm counted stays in the module.
  Trip forward(const torch::Tensor& input, std::int64_t batch, bool keep_statistics = true);
  /// One optimizer step, now, with the gradients of `trip`. Returns the gradient with respect to its input.
  torch::Tensor step(const Trip& trip, const torch::Tensor& grad_output);
  void add_to(Digest& digest) const;

 private:
  std::vector<torch::Tensor> parameters() const;

  int first_;
  std::uint64_t seed_;
  std::vector<torch::nn::AnyModule> blocks_;
  std::vector<std::string> names_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

/// One per stage of `lab`.
std::vector<OracleModule> oracle_modules(const Lab& lab);
std::string digest_of(const std::vector<OracleModule>& modules);
/// Gradient of the mean loss with respect to `output`.
torch::Tensor gradient_of_loss(const Model& model, const torch::Tensor& output, const torch::Tensor& target);

}  // namespace rubato::test
