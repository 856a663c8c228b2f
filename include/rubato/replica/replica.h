#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rubato/context/context.h"
#include "rubato/data/batch_source.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"
#include "rubato/replica/hooks.h"
#include "rubato/replica/observer.h"

namespace rubato {

/// One copy of the model that learns, and what feeds, watches and couples it. Roles share it; what it refers to outlives them and
/// is thread-safe.
struct Replica {
  const Model& model;
  WeightStore& store;
  BatchSource& source;
  StepObserver& observer;
  StageOptions stage;
  std::vector<BlockCost> costs;  ///< one per block; empty: all 0
  ReplicaHooks& hooks = no_hooks();
  std::string prefix = {};  ///< of the names of its roles and channels, "r1/"; empty for a single replica
  /// The one stage of a staged schedule that this process executes; nothing: all of them.
  std::optional<int> stage_here = std::nullopt;
  WorkCosts work = {};
};

/// When a backward pass publishes.
enum class Publish {
  block,  ///< each block as soon as its gradient exists
  model,  ///< all blocks after the last gradient
};
Publish parse_publish(const std::string& name);

/// The newest snapshot of each block of `stage`.
std::vector<Snapshot> read_weights(Context& me, const Replica& replica, const Stage& stage);

/// Begins the replica's step `step` (the index of the batch it took) for the blocks of `stage`: reads the newest weights and lets
/// the coupling start an exchange. Returns the weights to compute with.
std::vector<Snapshot> begin_step(Context& me, const Replica& replica, const Stage& stage, std::int64_t step);

/// Runs the stage forward on `input` with `weights` and publishes the statistics that the pass changed.
Pass forward_pass(Context& me, const Replica& replica, const Stage& stage, const std::vector<Snapshot>& weights,
                  const torch::Tensor& input, std::int64_t batch);

/// Loss of `pass` against `target`, reported to the observer. Returns the gradient with respect to the output.
torch::Tensor loss_gradient(Context& me, const Replica& replica, const Stage& stage, const Pass& pass,
                            const torch::Tensor& target);

/// Seconds of one part (forward, backward, update) of `block` for a whole batch; 0 where costs are unknown.
double seconds_of(const Replica& replica, int block, double BlockCost::*part);

/// `samples` of a batch as a share of a full one: below 1 for an epoch's last batch where it is short.
double share_of_a_batch(const Replica& replica, std::int64_t samples);

/// Walks `pass` from the last block to the first and hands each block's gradient to the replica's hooks in step `step`, when
/// `publish` says. Returns the gradient with respect to the stage's input.
/// `part`: only these blocks get gradients. The walk computes nothing but error gradients above them, ends at their first and
/// returns nothing.
torch::Tensor backward_pass(Context& me, const Replica& replica, const Stage& stage, Pass pass, torch::Tensor grad,
                            Publish publish, std::int64_t step, std::optional<BlockRange> part = std::nullopt);

/// Ends step `step` for the blocks of `stage`.
void end_step(Context& me, const Replica& replica, const Stage& stage, std::int64_t step);

}  // namespace rubato
