// A coupling of one's own. Replica 0 trains as if it were alone; at the end of every --period steps it shows its weights x_0 to
// the others, and each moves towards them:
//   x_i <- x_i + rate (x_0 - x_i),   with --follow-rate.
// What is tested and saved is replica 0.
//
//   r0 ──weights──> r1, r2, ...     r0 waits for nobody; the others wait for r0
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "rubato/extend.h"

namespace {

using namespace rubato;

/// The weights of replica 0. `members` says what of it goes into another process.
struct Shown final : Portable<Shown> {
  std::int64_t step = -1;
  std::vector<TensorSetPtr> weights;  ///< block by block
  std::size_t bytes() const override {
    std::size_t bytes = 0;
    for (const TensorSetPtr& block : weights) {
      for (const torch::Tensor& tensor : block->tensors) bytes += tensor.nbytes();
    }
    return bytes;
  }
  std::int64_t batch() const override { return step; }
  static auto members(auto& m) { return std::tie(m.step, m.weights); }
};

/// Large enough that replica 0 never waits. `blocks`: what a role of the schedule steps together; each range has a channel.
Channel<Shown> shown_to(int replica, BlockRange blocks) {
  return {{"follow/" + std::to_string(replica) + "/" + std::to_string(blocks.first), std::size_t{1} << 20}};
}

class FollowHooks final : public ReplicaHooks {
 public:
  FollowHooks(int replica, const CouplingOptions& options)
      : replica_(replica),
        replicas_(options.replicas),
        period_(options.period),
        rate_(options.values.get<double>("follow-rate")) {}

  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) override {
    if ((step + 1) % period_ != 0) return;
    replica_ == 0 ? show(me, store, blocks, step) : follow(me, store, blocks);
  }

 private:
  void show(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) {
    Shown shown;
    shown.step = step;
    for (int block = blocks.first; block < blocks.last; ++block) shown.weights.push_back(store.iterate(me, block));
    for (int other = 1; other < replicas_; ++other) send(me, shown_to(other, blocks), Shown(shown));
  }
  void follow(Context& me, WeightStore& store, BlockRange blocks) {
    const Shown shown = receive(me, shown_to(replica_, blocks));
    for (int block = blocks.first; block < blocks.last; ++block) {
      const auto& leader = shown.weights.at(static_cast<std::size_t>(block - blocks.first))->tensors;
      store.update(me, block, "follow", [&](const TensorSet& now, std::vector<torch::Tensor>& next) {
        for (std::size_t i = 0; i < next.size(); ++i) torch::lerp_out(next[i], now.tensors[i], leader.at(i), rate_);
      });
    }
  }

  int replica_, replicas_;
  std::int64_t period_;
  double rate_;
};

class Follow final : public Coupling {
 public:
  Follow(const CouplingParts& parts, const CouplingOptions& options) : stores_(parts.stores) {
    for (int i = 0; i < options.replicas; ++i) hooks_.emplace_back(i, options);
  }
  ReplicaHooks& hooks(int replica) override { return hooks_.at(static_cast<std::size_t>(replica)); }
  WeightStore& evaluation_weights() override { return *stores_.front(); }
  bool evaluation_needs_statistics() const override { return false; }

 private:
  std::vector<WeightStore*> stores_;
  std::vector<FollowHooks> hooks_;
};

const bool registered = register_coupling(
    {.name = "follow",
     .summary = "replica 0 trains alone; the others move towards it every --period steps (--follow-rate)",
     .make = [](const CouplingParts& parts, const CouplingOptions& options) { return std::make_unique<Follow>(parts, options); },
     .least_replicas = 2,
     .default_period = 5,
     .shards_data = true,
     .fixed_protocol = true,
     .options = {{.name = "follow-rate",
                  .usual = 0.5,
                  .help = "follow: how far a replica moves towards replica 0, above 0",
                  .low = 0,
                  .high = 1}},
     .check =
         [](const OptionValues& values, const RunFacts&) {
           if (!(values.get<double>("follow-rate") > 0)) {
             throw UsageError("--follow-rate 0 ties nothing: give more than 0, or use --coupling none");
           }
         }});

}  // namespace
