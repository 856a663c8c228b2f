#include "rubato/cost/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cost/flop_counter.h"
#include "rubato/core/error.h"
#include "rubato/core/json_text.h"
#include "rubato/model/model.h"
#include "rubato/model/process.h"
#include "rubato/runtimes/platform.h"

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

  /// One training step on `batch`; `forward`, `backward` and `update` receive seconds per block, `flops` operations of each
  /// forward pass and of the loss. Returns the seconds of the loss.
  double step(const Batch& batch, std::vector<double>& forward, std::vector<double>& backward, std::vector<double>& update,
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
    std::optional<FlopCounter> counter;
    if (flops != nullptr) counter.emplace();
    const double loss_seconds = seconds_of([&] { grad = stages_.back()->loss(passes.back(), batch.target).grad_output; });
    if (flops != nullptr) flops->push_back(counter->flops());
    counter.reset();
    for (std::size_t i = blocks; i-- > 0;) {
      std::vector<torch::Tensor> gradients;
      backward[i] = seconds_of([&] { gradients = stages_[i]->backward(passes[i], 0, grad); });
      const int block = static_cast<int>(i);
      const std::int64_t version = passes[i].weights(0).parameters->version;
      update[i] = seconds_of([&] { store_.apply(me_, block, std::move(gradients), version); });
    }
    return loss_seconds;
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
  profile.loss_flops = flops.back();
  return profile;
}

}  // namespace

std::vector<BlockCost> Profile::costs_of_stages() const {
  std::vector<BlockCost> with_loss = costs();
  with_loss.back().forward += loss_seconds;
  return with_loss;
}

double Profile::flops() const {
  double sum = 0;
  for (const BlockProfile& block : blocks) sum += block.flops;
  return sum;
}

double seconds_per_operation(const std::vector<BlockCost>& costs, double flops) {
  double forward = 0;
  for (const BlockCost& cost : costs) forward += cost.forward;
  return flops > 0 ? forward / flops : 0;
}

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
  std::vector<double> loss;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<double> f, b, u;
    loss.push_back(blocks.step(batch, f, b, u, nullptr, nullptr));
    for (std::size_t i = 0; i < count; ++i) {
      forward[i].push_back(f[i]);
      backward[i].push_back(b[i]);
      update[i].push_back(u[i]);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    profile.blocks[i].seconds = {median(forward[i]), median(backward[i]), median(update[i])};
  }
  profile.loss_seconds = median(loss);
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
  profile.loss_seconds = profile.loss_flops / flops_per_second;
  return profile;
}

std::vector<double> measure_slowdown(const Model& model, const StageOptions& options, const StoreOptions& store,
                                     const Batch& batch, int threads, int repeats) {
  std::vector<std::unique_ptr<BlockByBlock>> copies;
  for (int i = 0; i < threads; ++i) copies.push_back(std::make_unique<BlockByBlock>(model, stashed(options), store));
  const auto step_seconds = [&](BlockByBlock& blocks) {
    std::vector<double> f, b, u;
    return seconds_of([&] { blocks.step(batch, f, b, u, nullptr, nullptr); });
  };
  std::vector<std::vector<double>> seconds(static_cast<std::size_t>(threads));
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (int busy = 1; busy <= threads; ++busy) {
      std::vector<double> each(static_cast<std::size_t>(busy));
      std::barrier start(busy);
      std::vector<std::jthread> others;
      const auto work = [&](int i) {
        prepare_thread(1);
        step_seconds(*copies[static_cast<std::size_t>(i)]);  // until all are under way
        start.arrive_and_wait();
        each[static_cast<std::size_t>(i)] = step_seconds(*copies[static_cast<std::size_t>(i)]);
      };
      for (int i = 1; i < busy; ++i) others.emplace_back(work, i);
      work(0);
      others.clear();
      seconds[static_cast<std::size_t>(busy - 1)].push_back(*std::ranges::max_element(each));
    }
  }
  std::vector<double> slowdown;
  for (auto& of_busy : seconds) slowdown.push_back(std::max(1.0, median(of_busy) / median(seconds.front())));
  return slowdown;
}

std::vector<BlockCost> parse_block_costs(const std::string& text, std::size_t blocks) {
  std::vector<BlockCost> costs;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const std::size_t colon = part.find(':');
    if (colon == std::string::npos) throw UsageError("--block-costs '" + part + "' is not FORWARD:BACKWARD, for example 2ms:4ms");
    costs.push_back({.forward = parse_seconds("--block-costs", part.substr(0, colon)),
                     .backward = parse_seconds("--block-costs", part.substr(colon + 1))});
  }
  if (costs.size() == 1) costs.resize(blocks, costs.front());
  if (costs.size() != blocks) {
    throw UsageError(
        fmt::format("--block-costs gives {} costs for {} blocks: give one for all, or one for each", costs.size(), blocks));
  }
  return costs;
}

namespace {

/// Line of `text` on which element `index` of the first array begins.
int line_of_element(const std::string& text, std::size_t index) {
  int line = 1, depth = 0;
  std::size_t found = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == '"' && (i == 0 || text[i - 1] != '\\')) quoted = !quoted;
    if (quoted) continue;
    if (c == '{' && ++depth == 2 && found++ == index) return line;
    if (c == '}') --depth;
  }
  return line;
}

BlockProfile block_from_json(const nlohmann::json& block) {
  return {.name = block.at("name"),
          .parameters = block.value("parameters", std::int64_t{0}),
          .activation_bytes = block.value("activation_bytes", std::int64_t{0}),
          .flops = block.value("flops", 0.0),
          .seconds = {block.at("forward_seconds"), block.at("backward_seconds"), block.value("update_seconds", 0.0)}};
}

}  // namespace

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
  nlohmann::ordered_json json = {{"blocks", blocks}, {"loss_flops", profile.loss_flops}, {"loss_seconds", profile.loss_seconds}};
  if (!profile.slowdown.empty()) json["slowdown"] = profile.slowdown;
  return json.dump(2) + "\n";
}

Profile profile_from_json(const std::string& text, const std::string& file_name) {
  Profile profile;
  const auto refuse = [&](int line, const std::string& why) {
    throw DataError(fmt::format("profile {}, line {}: {}", file_name, line, why));
  };
  const auto json = json_object(text, "profile " + file_name);
  try {
    profile.slowdown = json.value("slowdown", std::vector<double>{});
    profile.loss_flops = json.value("loss_flops", 0.0);
    profile.loss_seconds = json.value("loss_seconds", 0.0);  // earlier profiles have it in their last block
    if (!(profile.loss_seconds >= 0)) refuse(1, "the loss has a negative cost");
    for (const auto& block : json.at("blocks")) {
      const int line = line_of_element(text, profile.blocks.size());
      if (!block.is_object()) refuse(line, "a block must be an object, {...}");
      try {
        profile.blocks.push_back(block_from_json(block));
      } catch (const nlohmann::json::exception& error) {
        refuse(line, reason_of(error));
      }
      const BlockCost& cost = profile.blocks.back().seconds;
      if (!(cost.forward >= 0 && cost.backward >= 0 && cost.update >= 0)) {
        refuse(line, fmt::format("block '{}' has a negative cost", profile.blocks.back().name));
      }
    }
  } catch (const nlohmann::json::exception& error) {
    refuse(1, reason_of(error));
  }
  for (const double factor : profile.slowdown) {
    if (!(factor >= 1)) throw DataError(fmt::format("profile {}: a slowdown of {} is below 1", file_name, factor));
  }
  return profile;
}

}  // namespace rubato
