#include "rubato/replica/replica.h"

#include <cstdint>

#include "rubato/core/error.h"

namespace rubato {
namespace {

/// Which gradients of `block` a walk for `part` needs.
Wanted wanted_of(int block, BlockRange part) {
  if (block >= part.last) return Wanted::input;
  return block == part.first && block > 0 ? Wanted::parameters : Wanted::both;
}

}  // namespace

double seconds_of(const Replica& replica, int block, double BlockCost::*part) {
  return replica.costs.empty() ? 0 : replica.costs.at(block).*part;
}

double share_of_a_batch(const Replica& replica, std::int64_t samples) {
  return static_cast<double>(samples) / static_cast<double>(replica.source.batch_size());
}

Publish parse_publish(const std::string& name) {
  if (name == "block") return Publish::block;
  if (name == "model") return Publish::model;
  throw unknown_name("value of --publish", name, {"block", "model"});
}

std::vector<Snapshot> read_weights(Context& me, const Replica& replica, const Stage& stage) {
  std::vector<Snapshot> weights;
  for (int block = stage.first(); block < stage.last(); ++block) weights.push_back(replica.store.read(me, block));
  return weights;
}

std::vector<Snapshot> begin_step(Context& me, const Replica& replica, const Stage& stage, std::int64_t step) {
  std::vector<Snapshot> weights = read_weights(me, replica, stage);
  replica.hooks.step_begins(me, replica.store, {stage.first(), stage.last()}, weights, step);
  return weights;
}

void end_step(Context& me, const Replica& replica, const Stage& stage, std::int64_t step) {
  replica.hooks.step_ends(me, replica.store, {stage.first(), stage.last()}, step);
}

Pass forward_pass(Context& me, const Replica& replica, const Stage& stage, const std::vector<Snapshot>& weights,
                  const torch::Tensor& input, std::int64_t batch) {
  double seconds = 0;
  for (int block = stage.first(); block < stage.last(); ++block) seconds += seconds_of(replica, block, &BlockCost::forward);
  Pass pass;
  std::vector<std::vector<torch::Tensor>> buffers;
  me.compute(ComputeKind::forward, batch, seconds, [&] { pass = stage.forward(weights, input, batch, &buffers); });
  for (int local = 0; local < stage.size(); ++local) {
    replica.store.merge_buffers(me, stage.first() + local, weights[local].buffers, buffers[local]);
  }
  return pass;
}

torch::Tensor loss_gradient(Context& me, const Replica& replica, const Stage& stage, const Pass& pass,
                            const torch::Tensor& target) {
  LossResult result;
  me.compute(ComputeKind::loss, pass.batch(), replica.work.loss, [&] { result = stage.loss(pass, target); });
  replica.observer.step({.batch = pass.batch(),
                         .samples = target.size(0),
                         .correct = result.correct,
                         .predictions = result.predictions,
                         .loss = result.loss,
                         .time = me.now()});
  return result.grad_output;
}

torch::Tensor backward_pass(Context& me, const Replica& replica, const Stage& stage, Pass pass, torch::Tensor grad,
                            Publish publish, std::int64_t step, std::optional<BlockRange> part) {
  const std::int64_t batch = pass.batch();
  const double share = share_of_a_batch(replica, pass.input().size(0));
  if (stage.stale_weights() == StaleWeights::replayed) {
    double seconds = 0;
    for (int block = stage.first(); block < stage.last(); ++block) seconds += seconds_of(replica, block, &BlockCost::forward);
    const std::vector<Snapshot> newest = read_weights(me, replica, stage);
    me.compute(ComputeKind::replay, batch, seconds, [&] { stage.replay(pass, newest); });
  }
  std::vector<BlockGradient> kept;
  const int lowest = part ? part->first - stage.first() : 0;
  for (int local = stage.size() - 1; local >= lowest; --local) {
    const int block = stage.first() + local;
    const Wanted wanted = part ? wanted_of(block, *part) : Wanted::both;
    // With live weights the activations are still those of the forward pass: that is how old the gradient is.
    BlockGradient ready{
        .block = block, .clock_read = pass.weights(local).parameters->clock, .step = step, .batch = batch, .share = share};
    if (stage.stale_weights() == StaleWeights::live) stage.rebind(pass, local, replica.store.read(me, block));
    const double backward = seconds_of(replica, block, &BlockCost::backward);
    const double seconds = wanted == Wanted::input ? backward / 2 : backward + seconds_of(replica, block, &BlockCost::update);
    me.compute(ComputeKind::backward, batch, seconds, [&] { ready.gradients = stage.backward(pass, local, grad, wanted); });
    if (wanted == Wanted::input) continue;
    if (publish == Publish::block) {
      replica.hooks.gradient_ready(me, replica.store, std::move(ready));
    } else {
      kept.push_back(std::move(ready));
    }
  }
  for (BlockGradient& ready : kept) replica.hooks.gradient_ready(me, replica.store, std::move(ready));
  return grad;
}

}  // namespace rubato
