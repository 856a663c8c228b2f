#include <cstdint>

#include <fmt/format.h>

#include "rubato/core/error.h"
#include "rubato/core/partition.h"
#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"
#include "schedules/entries.h"

namespace rubato {
namespace {

/// Cuts the model into `count` contiguous parts, each with parameters and together all blocks, so that the part with most
/// parameters has as few as possible. Blocks without parameters belong to the part below them.
std::vector<BlockRange> parts_of(const Model& model, int count) {
  std::vector<double> sizes;
  std::vector<int> blocks;  // those with parameters
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    double size = 0;
    for (const torch::Tensor& parameter : model.blocks[i].module.ptr()->parameters()) {
      size += static_cast<double>(parameter.numel());
    }
    if (size == 0) continue;
    sizes.push_back(size);
    blocks.push_back(static_cast<int>(i));
  }
  if (count > static_cast<int>(blocks.size())) {
    throw UsageError(
        fmt::format("--workers {} with --schedule lpp: each worker needs a part of the model of its own and only {} blocks have "
                    "parameters; use at most {} workers",
                    count, blocks.size(), blocks.size()));
  }
  std::vector<BlockRange> parts = {{0, static_cast<int>(model.blocks.size())}};
  for (const int cut : linear_partition(sizes, count)) {
    const int first = blocks[static_cast<std::size_t>(cut)];
    parts.push_back({first, parts.back().last});
    parts[parts.size() - 2].last = first;
  }
  return parts;
}

/// LPP-SGD, locally partitioned parallel SGD (Chatterjee, Kungurtsev, Alistarh 2022): Hogwild! whose workers take turns, batch by
/// batch, between a gradient of the whole model and one of their own part of it, for which the backward pass ends at the part's
/// first block and computes nothing but error gradients above it:
///   w <- w - rate * grad f(w_read),   then   w_[p] <- w_[p] - rate * grad_[p] f(w_read).
/// A block that gets no gradient in a step counts it all the same (skip), so that the learning rate of every block follows the
/// replica's batches.
class Lpp final : public Schedule {
 public:
  Lpp(Replica& replica, const ScheduleOptions& options)
      : replica_(replica),
        stage_(replica.model, 0, static_cast<int>(replica.model.blocks.size()), replica.stage),
        publish_(options.publish),
        partial_after_(options.values.get<std::int64_t>("partial-after")) {
    for (const BlockRange part : parts_of(replica.model, options.values.get<int>("workers"))) workers_.push_back({part});
  }

  std::vector<Role> roles() override {
    std::vector<Role> roles;
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      roles.push_back({.name = replica_.prefix + "worker-" + std::to_string(i),
                       .run = [this, &worker = workers_[i]](Context& me) { work(me, worker); },
                       .device = static_cast<int>(i)});
    }
    return roles;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    std::vector<std::int64_t> turns;
    for (const Worker& worker : workers_) turns.push_back(worker.partial_is_next ? 1 : 0);
    archive.write("partial_is_next", torch::IValue(turns));
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::IValue turns;
    archive.read("partial_is_next", turns);
    const auto values = turns.toIntVector();
    for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i].partial_is_next = values.at(i) != 0;
  }

 private:
  struct Worker {
    BlockRange part;
    bool partial_is_next = false;
  };

  void work(Context& me, Worker& worker) {
    while (const auto batch = replica_.source.next(me)) {
      const bool partial = batch->index >= partial_after_ && std::exchange(worker.partial_is_next, !worker.partial_is_next);
      const std::vector<Snapshot> weights = begin_step(me, replica_, stage_, batch->index);
      Pass pass = forward_pass(me, replica_, stage_, weights, batch->input, batch->index);
      torch::Tensor grad = loss_gradient(me, replica_, stage_, pass, batch->target);
      backward_pass(me, replica_, stage_, std::move(pass), std::move(grad), publish_, batch->index,
                    partial ? std::optional(worker.part) : std::nullopt);
      if (partial) skip_others(me, worker.part);
      end_step(me, replica_, stage_, batch->index);
    }
  }

  void skip_others(Context& me, BlockRange part) {
    for (int block = stage_.last() - 1; block >= 0; --block) {
      if (block < part.first || block >= part.last) replica_.store.skip(me, block);
    }
  }

  Replica& replica_;
  Stage stage_;
  Publish publish_;
  std::int64_t partial_after_;
  std::vector<Worker> workers_;
};

}  // namespace

ScheduleEntry schedule_detail::lpp() {
  return {
      .name = "lpp",
      .summary = "hogwild whose workers alternate whole gradients with those of a part of their own (--workers, --partial-after)",
      .paper = "Chatterjee, Kungurtsev, Alistarh 2022, arXiv 2203.06638",
      .width = [](const ScheduleOptions& options) { return options.values.get<int>("workers"); },
      .make = [](Replica& replica, const ScheduleOptions& options) { return std::make_unique<Lpp>(replica, options); },
      .partial_steps = true,
      .options = {workers_option(),
                  {.name = "partial-after",
                   .usual = 0,
                   .help = "lpp: steps with whole gradients before the first partial one",
                   .low = 0}}};
}

}  // namespace rubato
