#include <cstdint>
#include <deque>
#include <map>

#include "couplings/entries.h"
#include "couplings/parts.h"

namespace rubato::coupling_detail {
namespace {

/// From a schedule's role to its replica's reducer: a gradient, the end of a step, or the end of the segment.
struct Handover final : Message {
  enum Kind { gradient, step_end, leave } kind = leave;
  BlockGradient part;
  std::int64_t step = -1;
  std::string respond_to;
  std::size_t bytes() const override { return 0; }  // stays on the device
  std::int64_t batch() const override { return kind == gradient ? part.batch : step; }
};

/// The step's gradients have been applied.
struct Applied final : Message {
  std::size_t bytes() const override { return 0; }
};

Channel<Handover> handovers(const std::string& prefix, BlockRange blocks) {
  return {{"gradients/" + prefix + std::to_string(blocks.first), unbounded}};
}

class AllReduceHooks final : public ReplicaHooks {
 public:
  AllReduceHooks(std::string prefix, const std::vector<BlockRange>& ranges) : prefix_(std::move(prefix)), ranges_(ranges) {}

  void gradient_ready(Context& me, WeightStore&, BlockGradient gradient) override {
    Handover handover;
    handover.kind = Handover::gradient;
    handover.step = gradient.step;
    const BlockRange blocks = range_of(gradient.block);
    handover.part = std::move(gradient);
    send(me, handovers(prefix_, blocks), std::move(handover));
  }

  void step_ends(Context& me, WeightStore&, BlockRange blocks, std::int64_t step) override {
    const Channel<Applied> applied{{"applied/" + me.name(), 1}};
    Handover end;
    end.kind = Handover::step_end;
    end.step = step;
    end.respond_to = applied.name;
    send(me, handovers(prefix_, blocks), std::move(end));
    receive(me, applied);
  }

 private:
  BlockRange range_of(int block) const {
    for (const BlockRange range : ranges_) {
      if (block >= range.first && block < range.last) return range;
    }
    throw std::logic_error("allreduce: block " + std::to_string(block) + " belongs to no range");
  }
  std::string prefix_;
  std::vector<BlockRange> ranges_;
};

/// What one reducer does: sums gradients over replicas in buckets while the backward pass goes on below, and applies the mean.
/// Steps are taken in order, so that the reducers of all replicas meet in the same one although several workers run ahead.
class Reducer {
 public:
  Reducer(const CouplingOptions& options, int replica, BlockRange blocks, WeightStore& store, std::int64_t first_step)
      : replica_(replica),
        group_{"gradients/" + std::to_string(blocks.first), options.replicas},
        bucket_bytes_(1024 * options.values.get<double>("bucket-kib")),
        inbox_(handovers(options.prefixes[static_cast<std::size_t>(replica)], blocks)),
        store_(store),
        step_(first_step) {}

  void run(Context& me) {
    for (;;) {
      Handover handover = receive(me, inbox_);
      if (handover.kind == Handover::leave) return;
      waiting_[handover.step].push_back(std::move(handover));
      while (!waiting_.empty() && waiting_.begin()->first == step_) work_on(me);
    }
  }

 private:
  /// Everything there is of the current step.
  void work_on(Context& me) {
    std::deque<Handover> parts = std::move(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    for (Handover& handover : parts) {
      if (handover.kind == Handover::gradient) {
        bytes_ += bytes_of(handover.part.gradients);
        bucket_.push_back(std::move(handover.part));
        if (static_cast<double>(bytes_) >= bucket_bytes_) reduce(me);
      } else {
        if (!bucket_.empty()) reduce(me);
        ++step_;
        send(me, Channel<Applied>{{handover.respond_to, 1}}, Applied{});
      }
    }
  }

  void reduce(Context& me) {
    auto part = std::make_unique<TensorSum>();
    part->weight = static_cast<float>(bucket_.front().share);  // all are of one step of one stage, therefore of one batch
    for (const BlockGradient& gradient : bucket_) {
      for (const torch::Tensor& tensor : gradient.gradients) {
        part->tensors.push_back(tensor.defined() && part->weight != 1 ? tensor * static_cast<double>(part->weight) : tensor);
      }
    }
    const auto sum = std::static_pointer_cast<const TensorSum>(me.all_reduce(group_, replica_, std::move(part)));
    auto next = sum->tensors.begin();
    for (BlockGradient& gradient : bucket_) {
      for (torch::Tensor& tensor : gradient.gradients) {
        const torch::Tensor& total = *next++;
        if (total.defined()) tensor = total / static_cast<double>(sum->weight);
      }
      store_.apply(me, gradient.block, std::move(gradient.gradients), gradient.clock_read, gradient.batch);
    }
    bucket_.clear();
    bytes_ = 0;
  }

  int replica_;
  GroupSpec group_;
  double bucket_bytes_;
  Channel<Handover> inbox_;
  WeightStore& store_;
  std::int64_t step_;
  std::map<std::int64_t, std::deque<Handover>> waiting_;
  std::vector<BlockGradient> bucket_;
  std::size_t bytes_ = 0;
};

/// Synchronous data parallelism: every replica applies the mean gradient of all samples of the step, so all stay equal to the
/// bit:
///   w <- w - eta sum_i n_i g_i / sum_i n_i.
class AllReduce final : public Coupling {
 public:
  AllReduce(const CouplingParts& parts, const CouplingOptions& options)
      : options_(options), stores_(parts.stores), hooks_(parts, [&](int i) {
          return std::make_unique<AllReduceHooks>(options.prefixes.at(static_cast<std::size_t>(i)), options.ranges);
        }) {}

  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  WeightStore& evaluation_weights() override { return *stores_.front(); }
  bool evaluation_needs_statistics() const override { return false; }

  std::vector<Role> roles(std::int64_t first_step) override {
    std::vector<Role> roles;
    for (int replica = 0; replica < options_.replicas; ++replica) {
      if (stores_[static_cast<std::size_t>(replica)] == nullptr) continue;
      for (const BlockRange blocks : options_.ranges) {
        roles.push_back(
            {.name = options_.prefixes[static_cast<std::size_t>(replica)] + "reducer-" + std::to_string(blocks.first),
             .run =
                 [this, replica, blocks, first_step](Context& me) {
                   Reducer(options_, replica, blocks, *stores_[static_cast<std::size_t>(replica)], first_step).run(me);
                 },
             .device = replica});
      }
    }
    return roles;
  }
  void replica_left(Context& me, int replica) override {
    for (const BlockRange blocks : options_.ranges) {
      send(me, handovers(options_.prefixes[static_cast<std::size_t>(replica)], blocks), Handover{});
    }
  }

 private:
  CouplingOptions options_;
  std::vector<WeightStore*> stores_;
  HooksOf<AllReduceHooks> hooks_;
};

}  // namespace

CouplingEntry allreduce() {
  return {.name = "allreduce",
          .summary = "synchronous data parallelism: every replica applies the mean gradient, summed while backward goes on",
          .make = [](const CouplingParts& parts,
                     const CouplingOptions& options) { return std::make_unique<AllReduce>(parts, options); },
          .default_period = 0,
          .shards_data = true,
          .fixed_protocol = true,
          .every_block = true,
          .loses_replicas = true,
          .options = {{.name = "bucket-kib",
                       .usual = 1024.0,
                       .help = "allreduce: KiB of gradients that travel together",
                       .low = 1.0 / 1024,
                       .high = 1 << 20,
                       .identity = false}}};
}

}  // namespace rubato::coupling_detail
