#include <cstdint>

#include "couplings/entries.h"
#include "couplings/parts.h"

namespace rubato::coupling_detail {
namespace {

/// A period of the replica has ended.
struct Tick final : Message {
  std::int64_t step = -1;
  bool leaves = false;
  std::size_t bytes() const override { return 0; }
  std::int64_t batch() const override { return step; }
};

Channel<Tick> ticks(const std::string& prefix, BlockRange blocks) {
  return {{"ticks/" + prefix + std::to_string(blocks.first), unbounded}};
}

/// Tells the averager and goes on.
class LapHooks final : public ReplicaHooks {
 public:
  LapHooks(std::string prefix, std::int64_t period) : prefix_(std::move(prefix)), period_(period) {}
  void step_ends(Context& me, WeightStore&, BlockRange blocks, std::int64_t step) override {
    if (!period_ends(step, period_)) return;
    Tick tick;
    tick.step = step;
    send(me, ticks(prefix_, blocks), std::move(tick));
  }

 private:
  std::string prefix_;
  std::int64_t period_;
};

/// LAP-SGD, locally asynchronous parallel SGD (Chatterjee, Kungurtsev, Alistarh 2022): beside each replica's workers an averager
/// takes a snapshot, averages it with the others and adds the difference, so that what the workers did meanwhile is kept. Workers
/// never wait.
class Lap final : public Coupling {
 public:
  Lap(const CouplingParts& parts, const CouplingOptions& options)
      : options_(options), stores_(parts.stores), mean_(parts), hooks_(parts, [&](int i) {
          return std::make_unique<LapHooks>(options.prefixes.at(static_cast<std::size_t>(i)), options.period);
        }) {}

  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  WeightStore& evaluation_weights() override { return mean_.refreshed(); }

  std::vector<Role> roles(std::int64_t) override {
    std::vector<Role> roles;
    for (int replica = 0; replica < options_.replicas; ++replica) {
      if (stores_[static_cast<std::size_t>(replica)] == nullptr) continue;
      for (const BlockRange blocks : options_.ranges) {
        roles.push_back(
            {.name = options_.prefixes[static_cast<std::size_t>(replica)] + "averager-" + std::to_string(blocks.first),
             .run = [this, replica, blocks](Context& me) { average(me, replica, blocks); },
             .device = replica});
      }
    }
    return roles;
  }
  void replica_left(Context& me, int replica) override {
    for (const BlockRange blocks : options_.ranges) {
      Tick farewell;
      farewell.leaves = true;
      send(me, ticks(options_.prefixes[static_cast<std::size_t>(replica)], blocks), std::move(farewell));
    }
  }

 private:
  void average(Context& me, int replica, BlockRange blocks) {
    const auto all_ticks = ticks(options_.prefixes[static_cast<std::size_t>(replica)], blocks);
    const GroupSpec group{"mean/" + std::to_string(blocks.first), options_.replicas};
    WeightStore& store = *stores_[static_cast<std::size_t>(replica)];
    while (!receive(me, all_ticks).leaves) {
      const BlockSets before = iterates(me, store, blocks);
      const BlockTensors means = mean_over(me, group, replica, before);
      for (std::size_t local = 0; local < before.size(); ++local) {
        move_towards(me, store, blocks.first + static_cast<int>(local), "mean", *before[local], means[local]);
      }
    }
  }

  CouplingOptions options_;
  std::vector<WeightStore*> stores_;
  MeanStore mean_;
  HooksOf<LapHooks> hooks_;
};

}  // namespace

CouplingEntry lap() {
  return {
      .name = "lap",
      .summary = "every --period steps averagers add the difference to the mean; workers never wait",
      .paper = "Chatterjee, Kungurtsev, Alistarh 2022, arXiv 2203.06638",
      .make = [](const CouplingParts& parts, const CouplingOptions& options) { return std::make_unique<Lap>(parts, options); },
      .membership = Membership::free,
      .least_replicas = 2,
      .default_period = 16,
      .shards_data = true,
      .loses_replicas = true};
}

}  // namespace rubato::coupling_detail
