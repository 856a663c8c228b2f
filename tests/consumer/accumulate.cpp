// A schedule of one's own: gradient accumulation. It takes --accumulate batches on the same weights, one after the other, and
// then one step with their mean gradient. For the learning rate every batch counts, as in other schedules.
//
//   batch ──> forward, backward ──> Accumulator (stands where the hooks of the coupling stood) ──> after N batches: the hooks of
//   the coupling
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rubato/extend.h"

namespace {

using namespace rubato;

/// Keeps gradients back until there are enough, then hands their mean on to the replica's real hooks.
class Accumulator final : public ReplicaHooks {
 public:
  Accumulator(ReplicaHooks& real, int blocks, int most) : real_(real), most_(most), sums_(static_cast<std::size_t>(blocks)) {}

  void step_begins(Context& me, WeightStore& store, BlockRange blocks, const std::vector<Snapshot>& weights,
                   std::int64_t step) override {
    real_.step_begins(me, store, blocks, weights, step);
  }
  void gradient_ready(Context& me, WeightStore& store, BlockGradient ready) override {
    Sum& sum = sums_[static_cast<std::size_t>(ready.block)];
    me.compute(ComputeKind::other, ready.batch, 0, [&] { add(sum, ready); });
    if (++sum.batches < most_) {
      store.skip(me, ready.block);  // the batch counts for the clock, and changes nothing
      return;
    }
    ready.gradients = std::move(sum.gradients);
    me.compute(ComputeKind::other, ready.batch, 0, [&] {
      for (torch::Tensor& gradient : ready.gradients) {
        if (gradient.defined()) gradient = gradient / sum.share;
      }
    });
    ready.share = sum.share / most_;
    sum = {};
    real_.gradient_ready(me, store, std::move(ready));
  }
  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) override {
    real_.step_ends(me, store, blocks, step);
  }

  void save(torch::serialize::OutputArchive& archive) const {
    for (std::size_t block = 0; block < sums_.size(); ++block) {
      const std::string name = "block" + std::to_string(block);
      archive.write(name, torch::IValue(sums_[block].batches));
      archive.write(name + "_share", torch::IValue(sums_[block].share));
      for (std::size_t i = 0; i < sums_[block].gradients.size(); ++i) {
        if (sums_[block].gradients[i].defined()) archive.write(name + "_" + std::to_string(i), sums_[block].gradients[i]);
      }
    }
  }
  void load(torch::serialize::InputArchive& archive, const WeightStore& store) {
    for (std::size_t block = 0; block < sums_.size(); ++block) {
      const std::string name = "block" + std::to_string(block);
      torch::IValue batches, share;
      archive.read(name, batches);
      archive.read(name + "_share", share);
      sums_[block] = {batches.toInt(), share.toDouble(), {}};
      if (sums_[block].batches == 0) continue;
      sums_[block].gradients.resize(store.parameter_names(static_cast<int>(block)).size());
      for (std::size_t i = 0; i < sums_[block].gradients.size(); ++i) {
        archive.try_read(name + "_" + std::to_string(i), sums_[block].gradients[i]);
      }
    }
  }

 private:
  struct Sum {
    std::int64_t batches = 0;
    double share = 0;  // of a full batch, all together
    std::vector<torch::Tensor> gradients;
  };

  static void add(Sum& sum, const BlockGradient& ready) {
    sum.share += ready.share;
    sum.gradients.resize(ready.gradients.size());
    for (std::size_t i = 0; i < ready.gradients.size(); ++i) {
      if (!ready.gradients[i].defined()) continue;
      const torch::Tensor part = ready.gradients[i] * ready.share;
      sum.gradients[i] = sum.gradients[i].defined() ? sum.gradients[i] + part : part;
    }
  }

  ReplicaHooks& real_;
  std::int64_t most_;
  std::vector<Sum> sums_;  // by block
};

class Accumulate final : public Schedule {
 public:
  Accumulate(Replica& replica, const ScheduleOptions& options)
      : accumulator_(replica.hooks, static_cast<int>(replica.model.blocks.size()), options.values.get<int>("accumulate")),
        replica_{replica.model, replica.store, replica.source, replica.observer,
                 replica.stage, replica.costs, accumulator_,   replica.prefix},
        stage_(replica.model, 0, static_cast<int>(replica.model.blocks.size()), replica.stage),
        publish_(options.publish) {}

  std::vector<Role> roles() override {
    return {{.name = replica_.prefix + "worker-0", .run = [this](Context& me) { work(me); }}};
  }
  void save(torch::serialize::OutputArchive& archive) const override { accumulator_.save(archive); }
  void load(torch::serialize::InputArchive& archive) override { accumulator_.load(archive, replica_.store); }

 private:
  void work(Context& me) {
    while (const auto batch = replica_.source.next(me)) {
      const std::vector<Snapshot> weights = begin_step(me, replica_, stage_, batch->index);
      Pass pass = forward_pass(me, replica_, stage_, weights, batch->input, batch->index);
      torch::Tensor grad = loss_gradient(me, replica_, stage_, pass, batch->target);
      backward_pass(me, replica_, stage_, std::move(pass), std::move(grad), publish_, batch->index);
      end_step(me, replica_, stage_, batch->index);
    }
  }

  Accumulator accumulator_;
  Replica replica_;  // the caller's, with other hooks
  Stage stage_;
  Publish publish_;
};

const bool registered = register_schedule(
    {.name = "accumulate",
     .summary = "one step with the mean gradient of --accumulate batches",
     .make = [](Replica& replica, const ScheduleOptions& options) { return std::make_unique<Accumulate>(replica, options); },
     .fixed_protocol = true,
     .partial_steps = true,
     .options = {{.name = "accumulate", .usual = 4, .help = "accumulate: batches of one step", .low = 1, .high = 1 << 20}}});

}  // namespace
