#include "schedules/staged.h"

#include <cstdint>

#include "rubato/core/error.h"

namespace rubato {
namespace {

std::string channel_name(const Replica& replica, const char* what, int cut) {
  return replica.prefix + what + "-" + std::to_string(cut);
}

}  // namespace

std::vector<BlockRange> stage_ranges(const std::vector<int>& cuts, int blocks) {
  std::vector<BlockRange> ranges;
  int first = 0;
  for (const int cut : cuts) {
    if (cut <= first || cut >= blocks) {
      throw UsageError("--cuts must increase strictly within 1 .. " + std::to_string(blocks - 1) + " for this model of " +
                       std::to_string(blocks) + " blocks; " + std::to_string(cut) + " does not");
    }
    ranges.push_back({first, cut});
    first = cut;
  }
  ranges.push_back({first, blocks});
  return ranges;
}

// A stage that waits for a gradient may have sent its next activation already: gradients need one place more.
StagePlace::StagePlace(const Replica& replica, int number_, int count_, int ahead)
    : number(number_),
      count(count_),
      below{{channel_name(replica, "activation", number - 1), static_cast<std::size_t>(ahead)}},
      above{{channel_name(replica, "activation", number), static_cast<std::size_t>(ahead)}},
      grad_below{{channel_name(replica, "gradient", number - 1), static_cast<std::size_t>(ahead) + 1}},
      grad_above{{channel_name(replica, "gradient", number), static_cast<std::size_t>(ahead) + 1}} {}

std::optional<Activation> next_work(Context& me, const Replica& replica, const StagePlace& place) {
  Activation work;
  if (place.is_first()) {
    auto batch = replica.source.next(me);
    if (!batch) return std::nullopt;
    work.index = batch->index;
    work.output = std::move(batch->input);
    work.target = std::move(batch->target);
  } else {
    work = receive(me, place.below);
    if (work.index < 0) return std::nullopt;
  }
  return work;
}

void send_up(Context& me, const StagePlace& place, std::int64_t index, torch::Tensor output, torch::Tensor target) {
  Activation up;
  up.index = index;
  up.output = std::move(output);
  up.target = std::move(target);
  send(me, place.above, std::move(up));
}

void send_down(Context& me, const StagePlace& place, std::int64_t index, torch::Tensor grad) {
  ErrorGradient down;
  down.index = index;
  down.grad = std::move(grad);
  send(me, place.grad_below, std::move(down));
}

void save_pass(torch::serialize::OutputArchive& archive, const Stage& stage, const Pass& pass) {
  archive.write("batch", torch::IValue(pass.batch()));
  archive.write("input", torch::IValue(pass.input()));
  if (stage.stale_weights() == StaleWeights::replayed) return;
  for (int local = 0; local < stage.size(); ++local) {
    const Snapshot& weights = pass.weights(local);
    const std::string key = std::to_string(local);
    archive.write("parameters" + key, torch::IValue(weights.parameters->tensors));
    archive.write("buffers" + key, torch::IValue(weights.buffers->tensors));
    archive.write("version" + key, torch::IValue(weights.parameters->version));
    archive.write("clock" + key, torch::IValue(weights.parameters->clock));
  }
}

Pass load_pass(torch::serialize::InputArchive& archive, const Stage& stage) {
  torch::IValue batch, input;
  archive.read("batch", batch);
  archive.read("input", input);
  if (stage.stale_weights() == StaleWeights::replayed) return stage.to_be_replayed(input.toTensor(), batch.toInt());
  std::vector<Snapshot> weights;
  for (int local = 0; local < stage.size(); ++local) {
    const std::string key = std::to_string(local);
    torch::IValue parameters, buffers, version, clock;
    archive.read("parameters" + key, parameters);
    archive.read("buffers" + key, buffers);
    archive.read("version" + key, version);
    archive.read("clock" + key, clock);
    weights.push_back({std::make_shared<TensorSet>(TensorSet{parameters.toTensorVector(), version.toInt(), clock.toInt()}),
                       std::make_shared<TensorSet>(TensorSet{buffers.toTensorVector()})});
  }
  return stage.forward(std::move(weights), input.toTensor(), batch.toInt());
}

void save_gradient(torch::serialize::OutputArchive& archive, const ErrorGradient& gradient) {
  archive.write("batch", torch::IValue(gradient.index));
  archive.write("gradient", torch::IValue(gradient.grad));
}

ErrorGradient load_gradient(torch::serialize::InputArchive& archive) {
  torch::IValue batch, grad;
  archive.read("batch", batch);
  archive.read("gradient", grad);
  ErrorGradient gradient;
  gradient.index = batch.toInt();
  gradient.grad = grad.toTensor();
  return gradient;
}

}  // namespace rubato
