#include <cstdint>

#include "couplings/entries.h"
#include "couplings/parts.h"

namespace rubato::coupling_detail {
namespace {

/// Local SGD: after every `period` steps each replica waits for the others and goes on from the mean of all. Momentum stays with
/// its replica.
class LocalSgdHooks final : public ReplicaHooks {
 public:
  LocalSgdHooks(int replica, const CouplingOptions& options)
      : replica_(replica), replicas_(options.replicas), period_(options.period) {}

  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) override {
    if (!period_ends(step, period_)) return;
    // Numbered: several workers of one replica may be at the end of different periods. One after the other, because sums whose
    // numbers are far apart may share connections.
    const GroupSpec group{"mean/" + std::to_string(blocks.first), replicas_, step / period_};
    const BlockSets mine = iterates(me, store, blocks);
    const BlockTensors means = mean_over(me, group, replica_, mine);
    for (std::size_t local = 0; local < mine.size(); ++local) {
      move_towards(me, store, blocks.first + static_cast<int>(local), "mean", *mine[local], means[local]);
    }
  }

 private:
  int replica_, replicas_;
  std::int64_t period_;
};

class LocalSgd final : public Coupling {
 public:
  LocalSgd(const CouplingParts& parts, const CouplingOptions& options)
      : mean_(parts), hooks_(parts, [&](int i) { return std::make_unique<LocalSgdHooks>(i, options); }) {}
  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  WeightStore& evaluation_weights() override { return mean_.refreshed(); }

 private:
  MeanStore mean_;
  HooksOf<LocalSgdHooks> hooks_;
};

}  // namespace

CouplingEntry local_sgd() {
  return {.name = "local-sgd",
          .summary = "every --period steps all replicas wait and go on from their mean",
          .paper = "Stich 2019, arXiv 1805.09767",
          .make = [](const CouplingParts& parts,
                     const CouplingOptions& options) { return std::make_unique<LocalSgd>(parts, options); },
          .shards_data = true,
          .fixed_protocol = true,
          .loses_replicas = true};
}

}  // namespace rubato::coupling_detail
