#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "rubato/data/batch_source.h"
#include "rubato/model/stage.h"
#include "rubato/replica/hooks.h"

namespace rubato {

/// How far stale gradients were from fresh ones of the same batches. Norms are Euclidean, over all parameters.
struct BiasReport {
  std::int64_t probes = 0;
  double mean_bias = 0, max_bias = 0;  ///< |g(w used) - g(w when applied)|
  double max_gradient = 0;             ///< G: largest |g(w when applied)|
  double lipschitz = 0;            ///< alpha: largest bias per distance between the two weights, a lower bound of the constant
  std::int64_t max_staleness = 0;  ///< tau: in steps of a block's optimizer
  double step_size = 0;            ///< eta: largest learning rate, divided by 1 - momentum
  std::int64_t waiting = 0;        ///< batches whose weights are kept, because parts of their gradients are still to come
  /// x = alpha eta tau and G x / (1 - x), which bounds the bias where x < 1 (PD-ASGD, arXiv 2410.05985); else nothing.
  double x() const { return lipschitz * step_size * static_cast<double>(max_staleness); }
  std::optional<double> bound() const;
};

/// Passes everything on to another tie; of every `every`-th batch of the replica it computes the gradient a second time, with the
/// weights that its first part is applied to. A step with gradients of a part of its blocks is left out. Takes no virtual time
/// and changes no weight.
class BiasProbe final : public ReplicaHooks {
 public:
  /// `make_batch` makes the replica's batch again. References outlive the probe.
  BiasProbe(ReplicaHooks& inner, const Model& model, const StageOptions& stage, std::int64_t every,
            std::function<Batch(std::int64_t)> make_batch);

  void step_begins(Context& me, WeightStore& store, BlockRange blocks, const std::vector<Snapshot>& weights,
                   std::int64_t step) override;
  void gradient_ready(Context& me, WeightStore& store, BlockGradient gradient) override;
  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) override;

  BiasReport report() const;

 private:
  struct Sample {
    std::map<int, Snapshot> used, now;                    // by block
    std::map<int, std::vector<torch::Tensor>> gradients;  // by block
  };
  void forget_partial(BlockRange blocks, std::int64_t step);
  void compare(const Sample& sample, const OptimizerOptions& optimizer, std::int64_t batch);

  ReplicaHooks& inner_;
  Stage stage_;
  std::int64_t every_;
  std::function<Batch(std::int64_t)> make_batch_;
  mutable std::mutex mutex_;                ///< guards what follows; never held while something is computed
  std::map<std::int64_t, Sample> samples_;  // by batch
  BiasReport report_;
};

}  // namespace rubato
