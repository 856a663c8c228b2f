#include "rubato/observe/bias_probe.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "rubato/model/model.h"

namespace rubato {

namespace {

StageOptions plain(StageOptions options) {
  options.stale_weights = StaleWeights::stashed;
  return options;
}

double squared_distance(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].defined() && b[i].defined()) sum += (a[i] - b[i]).square().sum().item<double>();
  }
  return sum;
}

double squared_norm(const std::vector<torch::Tensor>& tensors) {
  double sum = 0;
  for (const torch::Tensor& tensor : tensors) {
    if (tensor.defined()) sum += tensor.square().sum().item<double>();
  }
  return sum;
}

}  // namespace

std::optional<double> BiasReport::bound() const {
  if (x() >= 1) return std::nullopt;
  return max_gradient * x() / (1 - x());
}

BiasProbe::BiasProbe(ReplicaHooks& inner, const Model& model, const StageOptions& stage, std::int64_t every,
                     std::function<Batch(std::int64_t)> make_batch)
    : inner_(inner),
      stage_(model, 0, static_cast<int>(model.blocks.size()), plain(stage)),
      every_(every),
      make_batch_(std::move(make_batch)) {}

void BiasProbe::step_begins(Context& me, WeightStore& store, BlockRange blocks, const std::vector<Snapshot>& weights,
                            std::int64_t step) {
  if (step % every_ == 0) {
    const std::lock_guard lock(mutex_);
    Sample& sample = samples_[step];
    for (int block = blocks.first; block < blocks.last; ++block) {
      sample.used[block] = weights[static_cast<std::size_t>(block - blocks.first)];
    }
  }
  inner_.step_begins(me, store, blocks, weights, step);
}

void BiasProbe::gradient_ready(Context& me, WeightStore& store, BlockGradient gradient) {
  Sample complete;
  if (gradient.batch % every_ == 0) {
    const std::lock_guard lock(mutex_);
    Sample& sample = samples_[gradient.batch];
    Bystander nobody;  // what is read here decides nothing
    if (sample.now.empty()) {
      for (int block = 0; block < store.block_count(); ++block) sample.now[block] = store.read(nobody, block);
    }
    sample.gradients[gradient.block] = gradient.gradients;
    if (static_cast<int>(sample.gradients.size()) == store.block_count()) {
      complete = std::move(sample);
      samples_.erase(gradient.batch);
    }
  }
  if (!complete.gradients.empty() && static_cast<int>(complete.used.size()) == store.block_count()) {
    me.compute(ComputeKind::probe, gradient.batch, 0, [&] { compare(complete, store.options().optimizer, gradient.batch); });
  }
  inner_.gradient_ready(me, store, std::move(gradient));
}

void BiasProbe::step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) {
  if (step % every_ == 0) forget_partial(blocks, step);
  inner_.step_ends(me, store, blocks, step);
}

/// A batch that has gradients of some of the blocks which are stepped together, and whose step is over, gets no others.
void BiasProbe::forget_partial(BlockRange blocks, std::int64_t step) {
  const std::lock_guard lock(mutex_);
  const auto found = samples_.find(step);
  if (found == samples_.end()) return;
  int given = 0;
  for (int block = blocks.first; block < blocks.last; ++block) given += found->second.gradients.contains(block) ? 1 : 0;
  if (given > 0 && given < blocks.last - blocks.first) samples_.erase(found);
}

void BiasProbe::compare(const Sample& sample, const OptimizerOptions& optimizer, std::int64_t batch_index) {
  const Batch batch = make_batch_(batch_index);
  std::vector<Snapshot> now;
  for (const auto& [block, snapshot] : sample.now) now.push_back(snapshot);
  Pass pass = stage_.forward(now, batch.input, batch_index);
  torch::Tensor grad = stage_.loss(pass, batch.target).grad_output;
  double bias = 0, norm = 0, drift = 0;
  std::int64_t staleness = 0, clock = 0;
  for (int block = stage_.size() - 1; block >= 0; --block) {
    const auto fresh = stage_.backward(pass, block, grad);
    const torch::NoGradGuard no_grad;
    const TensorSet &used = *sample.used.at(block).parameters, &newest = *sample.now.at(block).parameters;
    bias += squared_distance(sample.gradients.at(block), fresh);
    norm += squared_norm(fresh);
    drift += squared_distance(used.tensors, newest.tensors);
    staleness = std::max(staleness, newest.clock - used.clock);
    clock = std::max(clock, newest.clock);
  }
  bias = std::sqrt(bias);
  const std::lock_guard lock(mutex_);
  report_.mean_bias = (report_.mean_bias * static_cast<double>(report_.probes) + bias) / static_cast<double>(report_.probes + 1);
  ++report_.probes;
  report_.max_bias = std::max(report_.max_bias, bias);
  report_.max_gradient = std::max(report_.max_gradient, std::sqrt(norm));
  if (drift > 0) report_.lipschitz = std::max(report_.lipschitz, bias / std::sqrt(drift));
  report_.max_staleness = std::max(report_.max_staleness, staleness);
  report_.step_size = std::max(report_.step_size, optimizer.learning_rate.at(clock) / (1 - optimizer.momentum));
}

BiasReport BiasProbe::report() const {
  const std::lock_guard lock(mutex_);
  BiasReport report = report_;
  report.waiting = static_cast<std::int64_t>(samples_.size());
  return report;
}

}  // namespace rubato
