#include "rubato/schedules/replica.h"

#include "rubato/core/error.h"

namespace rubato {
namespace {

double cost(const Replica& replica, int block, double BlockCost::*part) {
  return replica.costs.empty() ? 0 : replica.costs.at(block).*part;
}

}  // namespace

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

Pass forward_pass(Context& me, const Replica& replica, const Stage& stage, const torch::Tensor& input, std::int64_t batch) {
  const std::vector<Snapshot> weights = read_weights(me, replica, stage);
  double seconds = 0;
  for (int block = stage.first(); block < stage.last(); ++block) seconds += cost(replica, block, &BlockCost::forward);
  Pass pass;
  std::vector<std::vector<torch::Tensor>> buffers;
  me.compute("forward", batch, seconds, [&] { pass = stage.forward(weights, input, batch, &buffers); });
  for (int local = 0; local < stage.size(); ++local) {
    replica.store.merge_buffers(me, stage.first() + local, weights[local].buffers, buffers[local]);
  }
  return pass;
}

torch::Tensor loss_gradient(Context& me, const Replica& replica, const Stage& stage, const Pass& pass,
                            const torch::Tensor& target) {
  LossResult result;
  me.compute("loss", pass.batch(), 0, [&] { result = stage.loss(pass, target); });
  replica.observer.step({.batch = pass.batch(),
                         .samples = target.size(0),
                         .correct = result.correct,
                         .predictions = result.predictions,
                         .loss = result.loss,
                         .time = me.now()});
  return result.grad_output;
}

torch::Tensor backward_pass(Context& me, const Replica& replica, const Stage& stage, Pass pass, torch::Tensor grad,
                            Publish publish) {
  const std::int64_t batch = pass.batch();
  if (stage.stale_weights() == StaleWeights::replayed) {
    double seconds = 0;
    for (int block = stage.first(); block < stage.last(); ++block) seconds += cost(replica, block, &BlockCost::forward);
    const std::vector<Snapshot> newest = read_weights(me, replica, stage);
    me.compute("replay", batch, seconds, [&] { stage.replay(pass, newest); });
  }
  std::vector<std::vector<torch::Tensor>> kept(stage.size());
  for (int local = stage.size() - 1; local >= 0; --local) {
    const int block = stage.first() + local;
    if (stage.stale_weights() == StaleWeights::live) stage.rebind(pass, local, replica.store.read(me, block));
    std::vector<torch::Tensor> gradients;
    const double seconds = cost(replica, block, &BlockCost::backward) + cost(replica, block, &BlockCost::update);
    me.compute("backward", batch, seconds, [&] { gradients = stage.backward(pass, local, grad); });
    if (publish == Publish::block) {
      replica.store.apply(me, block, std::move(gradients), pass.weights(local).parameters->version, batch);
    } else {
      kept[local] = std::move(gradients);
    }
  }
  if (publish == Publish::model) {
    for (int local = stage.size() - 1; local >= 0; --local) {
      replica.store.apply(me, stage.first() + local, std::move(kept[local]), pass.weights(local).parameters->version, batch);
    }
  }
  return grad;
}

}  // namespace rubato
