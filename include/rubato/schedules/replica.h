#pragma once

#include <cstdint>
#include <vector>

#include "rubato/context/context.h"
#include "rubato/data/batch_source.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"
#include "rubato/schedules/observer.h"

namespace rubato {

/// One copy of the model that learns, and what feeds and watches it. Roles share it; what it refers to outlives them and is
/// thread-safe.
struct Replica {
  const Model& model;
  WeightStore& store;
  BatchSource& source;
  StepObserver& observer;
  StageOptions stage;
  std::vector<BlockCost> costs;  ///< one per block; empty: all 0
};

/// When a backward pass publishes.
enum class Publish {
  block,  ///< each block as soon as its gradient exists
  model,  ///< all blocks after the last gradient
};
Publish parse_publish(const std::string& name);

/// The newest snapshot of each block of `stage`.
std::vector<Snapshot> read_weights(Context& me, const Replica& replica, const Stage& stage);

/// Reads the newest weights, runs the stage forward on `input` and publishes the statistics that the pass changed.
Pass forward_pass(Context& me, const Replica& replica, const Stage& stage, const torch::Tensor& input, std::int64_t batch);

/// Loss of `pass` against `target`, reported to the observer. Returns the gradient with respect to the output.
torch::Tensor loss_gradient(Context& me, const Replica& replica, const Stage& stage, const Pass& pass,
                            const torch::Tensor& target);

/// Walks `pass` from the last block to the first and applies each block's gradient as `publish` says. Returns the gradient with
/// respect to the stage's input.
torch::Tensor backward_pass(Context& me, const Replica& replica, const Stage& stage, Pass pass, torch::Tensor grad,
                            Publish publish);

}  // namespace rubato
