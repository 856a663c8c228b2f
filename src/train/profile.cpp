#include "rubato/train/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "train/flop_counter.h"

namespace rubato {
namespace {

double seconds_of(FunctionRef<void()> work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

/// The blocks of a model as stages of their own, run one after the other.
class BlockByBlock {
 public:
  BlockByBlock(const Model& model, const StageOptions& options, const StoreOptions& store) : store_(model, store) {
    for (int i = 0; i < store_.block_count(); ++i) stages_.push_back(std::make_unique<Stage>(model, i, i + 1, options));
  }

  /// One training step on `batch`; `forward`, `backward` and `update` receive seconds per block.
  void step(const Batch& batch, std::vector<double>& forward, std::vector<double>& backward, std::vector<double>& update,
            std::vector<double>* flops, std::vector<torch::Tensor>* outputs) {
    const std::size_t blocks = stages_.size();
    forward.assign(blocks, 0);
    backward.assign(blocks, 0);
    update.assign(blocks, 0);
    std::vector<Pass> passes(blocks);
    torch::Tensor activation = batch.input;
    for (std::size_t i = 0; i < blocks; ++i) {
      const int block = static_cast<int>(i);
      std::optional<FlopCounter> counter;
      if (flops != nullptr) counter.emplace();
      forward[i] = seconds_of([&] { passes[i] = stages_[i]->forward({store_.read(me_, block)}, activation, batch.index); });
      if (flops != nullptr) flops->push_back(counter->flops());
      activation = passes[i].output();
      if (outputs != nullptr) outputs->push_back(activation);
    }
    torch::Tensor grad;
    const double loss_seconds = seconds_of([&] { grad = stages_.back()->loss(passes.back(), batch.target).grad_output; });
    forward.back() += loss_seconds;
    for (std::size_t i = blocks; i-- > 0;) {
      std::vector<torch::Tensor> gradients;
      backward[i] = seconds_of([&] { gradients = stages_[i]->backward(passes[i], 0, grad); });
      const int block = static_cast<int>(i);
      const std::int64_t version = passes[i].weights(0).parameters->version;
      update[i] = seconds_of([&] { store_.apply(me_, block, std::move(gradients), version); });
    }
  }

  WeightStore& store() { return store_; }

 private:
  Bystander me_;
  WeightStore store_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

StageOptions stashed(StageOptions options) {
  options.stale_weights = StaleWeights::stashed;
  return options;
}

Profile describe(const Model& model, BlockByBlock& blocks, const Batch& batch) {
  std::vector<double> forward, backward, update, flops;
  std::vector<torch::Tensor> outputs;
  blocks.step(batch, forward, backward, update, &flops, &outputs);
  Profile profile;
  Bystander me;
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    BlockProfile block{.name = model.blocks[i].name, .flops = flops[i]};
    for (const torch::Tensor& parameter : blocks.store().read(me, static_cast<int>(i)).parameters->tensors) {
      block.parameters += parameter.numel();
    }
    block.activation_bytes = static_cast<std::int64_t>(outputs[i].nbytes());
    profile.blocks.push_back(std::move(block));
  }
  return profile;
}

}  // namespace

std::vector<BlockCost> Profile::costs() const {
  std::vector<BlockCost> costs;
  for (const BlockProfile& block : blocks) costs.push_back(block.seconds);
  return costs;
}

Profile measure_profile(const Model& model, const StageOptions& options, const StoreOptions& store, const Batch& batch,
                        int repeats) {
  BlockByBlock blocks(model, stashed(options), store);
  Profile profile = describe(model, blocks, batch);  // also warms caches up
  const std::size_t count = model.blocks.size();
  std::vector<std::vector<double>> forward(count), backward(count), update(count);
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<double> f, b, u;
    blocks.step(batch, f, b, u, nullptr, nullptr);
    for (std::size_t i = 0; i < count; ++i) {
      forward[i].push_back(f[i]);
      backward[i].push_back(b[i]);
      update[i].push_back(u[i]);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    profile.blocks[i].seconds = {median(forward[i]), median(backward[i]), median(update[i])};
  }
  return profile;
}

Profile count_profile(const Model& model, const StageOptions& options, const Batch& batch, double flops_per_second) {
  BlockByBlock blocks(model, stashed(options), StoreOptions{});
  Profile profile = describe(model, blocks, batch);
  for (BlockProfile& block : profile.blocks) {
    const double forward = block.flops / flops_per_second;
    const double update = 4.0 * static_cast<double>(block.parameters) / flops_per_second;  // decay, momentum, step
    block.seconds = {forward, 2 * forward, update};
  }
  return profile;
}

std::string to_json(const Profile& profile) {
  nlohmann::ordered_json blocks = nlohmann::ordered_json::array();
  for (const BlockProfile& block : profile.blocks) {
    blocks.push_back({{"name", block.name},
                      {"parameters", block.parameters},
                      {"activation_bytes", block.activation_bytes},
                      {"flops", block.flops},
                      {"forward_seconds", block.seconds.forward},
                      {"backward_seconds", block.seconds.backward},
                      {"update_seconds", block.seconds.update}});
  }
  return nlohmann::ordered_json{{"blocks", blocks}}.dump(2) + "\n";
}

Profile profile_from_json(const std::string& text, const std::string& file_name) {
  Profile profile;
  try {
    const auto json = nlohmann::json::parse(text);
    for (const auto& block : json.at("blocks")) {
      profile.blocks.push_back(
          {.name = block.at("name"),
           .parameters = block.value("parameters", std::int64_t{0}),
           .activation_bytes = block.value("activation_bytes", std::int64_t{0}),
           .flops = block.value("flops", 0.0),
           .seconds = {block.at("forward_seconds"), block.at("backward_seconds"), block.value("update_seconds", 0.0)}});
    }
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("profile {}: {}", file_name, error.what()));
  }
  for (const BlockProfile& block : profile.blocks) {
    if (!(block.seconds.forward >= 0 && block.seconds.backward >= 0 && block.seconds.update >= 0)) {
      throw DataError(fmt::format("profile {}: block '{}' has a negative cost", file_name, block.name));
    }
  }
  return profile;
}

}  // namespace rubato
