#include <algorithm>
#include <cstdint>
#include <deque>
#include <stdexcept>

#include "rubato/core/error.h"
#include "schedules/entries.h"
#include "schedules/staged.h"

namespace rubato {
namespace {

/// What tells the delayed methods apart.
struct Delayed {
  const char* name;   ///< of the roles
  int hop;            ///< iterations that an error gradient is late by, per cut
  double shrink = 1;  ///< factor of an error gradient at each cut
};

/// A module of DDG, decoupled parallel backpropagation with delayed gradients (Huo et al. 2018), and of its relatives. Module k
/// of K applies at iteration t the gradient of batch t - D with D = hop (K - k); before that it has none and its version advances
/// without an update:
///   w_k(t+1) = w_k(t) - gamma * shrink^(K-k) * grad_k f_{x(t-D)}(w(t-D)).
/// Every module forwards batch t with w_k(t), then goes back through the oldest pass it holds with the error gradient that the
/// module above produced `hop` iterations ago. Dataflow through bounded queues fixes the result whatever the timing.
/// Nothing is flushed at the end of a segment: D passes stay in flight, and the next segment (or a resumed run) goes on.
///
/// - DDG, hop 1: forward is locked. All modules work on batch t in iteration t, one after the other.
/// - Features Replay (Huo et al. 2018), hop 1: a pass keeps its input only and is computed again by the newest weights.
/// - FDG (Zhuang et al.), hop 2: at each tick every module works on what the module below sent in the tick before, so iteration t
///   of module k falls into tick t + k - 1. A batch climbs K - k ticks from module k to the top and its gradient sinks as many.
class DelayedStage {
 public:
  DelayedStage(Replica& replica, const StageOptions& options, BlockRange blocks, StagePlace place, Delayed method,
               Publish publish)
      : replica_(replica),
        stage_(replica.model, blocks.first, blocks.last, options),
        place_(std::move(place)),
        method_(method),
        publish_(publish),
        delay_(static_cast<std::size_t>(method.hop * (place_.count - 1 - place_.number))) {}

  void run(Context& me) {
    while (auto work = next_work(me, replica_, place_)) {
      const std::int64_t step = work->index;
      iterate(me, std::move(*work));
      end_step(me, replica_, stage_, step);
    }
    if (place_.is_top()) return;
    send(me, place_.above, Activation{});
    while (arrived_.size() < owed()) arrived_.push_back(receive(me, place_.grad_above));
  }

  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  /// Gradients that the module above has made, or will before its segment ends, for passes that this module holds: it holds
  /// `hop` passes less than this one.
  std::size_t owed() const {
    const std::size_t held_above = delay_ - static_cast<std::size_t>(method_.hop);
    return in_flight_.size() - std::min(in_flight_.size(), held_above);
  }

  void iterate(Context& me, Activation work) {
    const std::int64_t step = work.index;
    const std::vector<Snapshot> weights = begin_step(me, replica_, stage_, step);
    Pass pass = forward_pass(me, replica_, stage_, weights, work.output, step);
    torch::Tensor grad;
    if (place_.is_top()) {
      grad = loss_gradient(me, replica_, stage_, pass, work.target);
    } else {
      send_up(me, place_, step, pass.output(), std::move(work.target));
    }
    if (stage_.stale_weights() == StaleWeights::replayed) pass.forget_output();
    in_flight_.push_back(std::move(pass));
    if (in_flight_.size() <= delay_) {
      for (int block = stage_.first(); block < stage_.last(); ++block) replica_.store.skip(me, block);
      return;
    }
    if (!place_.is_top()) grad = take_gradient(me);
    Pass oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    const std::int64_t batch = oldest.batch();
    grad = backward_pass(me, replica_, stage_, std::move(oldest), std::move(grad), publish_, step);
    if (!place_.is_first()) send_down(me, place_, batch, std::move(grad));
  }

  torch::Tensor take_gradient(Context& me) {
    if (arrived_.empty()) arrived_.push_back(receive(me, place_.grad_above));
    const ErrorGradient gradient = std::move(arrived_.front());
    arrived_.pop_front();
    if (gradient.index != in_flight_.front().batch()) {
      throw std::logic_error(std::string(method_.name) + ": gradient of batch " + std::to_string(gradient.index) +
                             " met the pass of batch " + std::to_string(in_flight_.front().batch()));
    }
    if (method_.shrink == 1) return gradient.grad;
    torch::Tensor shrunk;
    const double seconds = replica_.work.per_operation * static_cast<double>(gradient.grad.numel());
    me.compute(ComputeKind::shrink, gradient.index, seconds, [&] { shrunk = gradient.grad * method_.shrink; });
    return shrunk;
  }

  Replica& replica_;
  Stage stage_;
  StagePlace place_;
  Delayed method_;
  Publish publish_;
  std::size_t delay_;                  // D
  std::deque<Pass> in_flight_;         // oldest first; at most D between iterations
  std::deque<ErrorGradient> arrived_;  // of the oldest passes, taken out of the channel at the end of a segment
};

void DelayedStage::save(torch::serialize::OutputArchive& archive) const {
  archive.write("passes", torch::IValue(static_cast<std::int64_t>(in_flight_.size())));
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    torch::serialize::OutputArchive part(archive.compilation_unit());
    save_pass(part, stage_, in_flight_[i]);
    archive.write("pass" + std::to_string(i), part);
  }
  archive.write("gradients", torch::IValue(static_cast<std::int64_t>(arrived_.size())));
  for (std::size_t i = 0; i < arrived_.size(); ++i) {
    torch::serialize::OutputArchive part(archive.compilation_unit());
    save_gradient(part, arrived_[i]);
    archive.write("gradient" + std::to_string(i), part);
  }
}

void DelayedStage::load(torch::serialize::InputArchive& archive) {
  torch::IValue passes, gradients;
  archive.read("passes", passes);
  archive.read("gradients", gradients);
  in_flight_.clear();
  arrived_.clear();
  for (std::int64_t i = 0; i < passes.toInt(); ++i) {
    torch::serialize::InputArchive part;
    archive.read("pass" + std::to_string(i), part);
    in_flight_.push_back(load_pass(part, stage_));
  }
  for (std::int64_t i = 0; i < gradients.toInt(); ++i) {
    torch::serialize::InputArchive part;
    archive.read("gradient" + std::to_string(i), part);
    arrived_.push_back(load_gradient(part));
  }
}

std::unique_ptr<Schedule> make_delayed(Replica& replica, const ScheduleOptions& options, Delayed method, StaleWeights stale) {
  return std::make_unique<StagedSchedule<DelayedStage>>(
      replica, options.cuts, method.name, [&](BlockRange blocks, int number, int count) {
        StageOptions stage = replica.stage;
        stage.stale_weights = stale;
        // The top module goes back at once: there is nothing newer to replay its pass with.
        if (stale == StaleWeights::replayed && number == count - 1) stage.stale_weights = StaleWeights::stashed;
        return std::make_unique<DelayedStage>(replica, stage, blocks, StagePlace(replica, number, count, method.hop), method,
                                              options.publish);
      });
}

}  // namespace

ScheduleEntry schedule_detail::ddg() {
  return {.name = "ddg",
          .summary = "the model cut into K stages that run in parallel on delayed gradients (--stages, --cuts)",
          .paper = "Huo et al. 2018, arXiv 1804.10574",
          .width = one_role_per_stage,
          .make =
              [](Replica& replica, const ScheduleOptions& options) {
                return make_delayed(replica, options, {.name = "ddg", .hop = 1}, replica.stage.stale_weights);
              },
          .uses_cuts = true,
          .fixed_protocol = true};
}

ScheduleEntry schedule_detail::features_replay() {
  return {.name = "features-replay",
          .summary =
              "ddg whose stages keep inputs only and compute the forward pass again with the newest weights (--stages, --cuts)",
          .paper = "Huo et al. 2018, arXiv 1807.04511",
          .width = one_role_per_stage,
          .make =
              [](Replica& replica, const ScheduleOptions& options) {
                return make_delayed(replica, options, {.name = "fr", .hop = 1}, StaleWeights::replayed);
              },
          .uses_cuts = true,
          .fixed_protocol = true,
          .stale_weights = {StaleWeights::replayed},
          .why_no_other = "it always computes the forward pass again; leave --stale-weights out or use --schedule ddg"};
}

ScheduleEntry schedule_detail::fdg() {
  return {.name = "fdg",
          .summary =
              "all stages work at once on different batches, forward too; gradients twice as late as ddg's (--stages, "
              "--cuts, --gradient-shrinking)",
          .paper = "Zhuang et al. 2021, arXiv 1906.09108",
          .width = one_role_per_stage,
          .make =
              [](Replica& replica, const ScheduleOptions& options) {
                const double shrink = options.values.get<double>("gradient-shrinking");
                return make_delayed(replica, options, {.name = "fdg", .hop = 2, .shrink = shrink}, replica.stage.stale_weights);
              },
          .uses_cuts = true,
          .fixed_protocol = true,
          .options = {{.name = "gradient-shrinking",
                       .usual = 1.0,
                       .help = "fdg: beta, factor of an error gradient at each cut, above 0",
                       .low = 0,
                       .high = 1}},
          .check =
              [](const OptionValues& values, const RunFacts&) {
                if (values.get<double>("gradient-shrinking") > 0) return;
                throw UsageError("--gradient-shrinking 0 must be above 0 and at most 1; at 0 only the last stage would learn");
              }};
}

}  // namespace rubato
