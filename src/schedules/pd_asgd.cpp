#include <algorithm>
#include <cstdint>
#include <optional>

#include "rubato/context/last_to_leave.h"
#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"
#include "schedules/entries.h"

namespace rubato {
namespace {

/// A pass on its way from a forward to a backward thread; without a pass: no more will come.
struct Forwarded final : Message {
  Pass pass;
  torch::Tensor grad_output;
  std::size_t bytes() const override { return grad_output.defined() ? grad_output.nbytes() : 0; }
  std::int64_t batch() const override { return pass.batch(); }
};

/// Permission to start one more pass.
struct Permit final : Message {
  std::size_t bytes() const override { return 0; }
};

/// PD-ASGD, the decoupled, layer-wise scheme of arXiv 2410.05985 v1/v3: F forward threads run back to back on the newest
/// weights; B backward threads walk from the last layer to the first and update each layer as soon as its gradient exists.
/// Own choices, which the paper leaves open: passes in flight are bounded by permits; the backward pass uses the weights of its
/// forward pass unless `stale_weights` says otherwise; momentum belongs to the replica.
class PdAsgd final : public Schedule {
 public:
  PdAsgd(Replica& replica, const ScheduleOptions& options)
      : replica_(replica),
        stage_(replica.model, 0, static_cast<int>(replica.model.blocks.size()), replica.stage),
        forward_threads_(options.values.get<int>("forward-threads")),
        backward_threads_(options.values.get<int>("backward-threads")),
        publish_(options.publish),
        unissued_permits_(options.values.get<int>("max-in-flight")),
        permits_{{replica.prefix + "permits", static_cast<std::size_t>(unissued_permits_)}},
        passes_{{replica.prefix + "passes", static_cast<std::size_t>(unissued_permits_ + backward_threads_)}},
        forwarding_(replica.prefix + "forward") {}

  std::vector<Role> roles() override {
    forwarding_.expect(forward_threads_);
    std::vector<Role> roles;
    for (int i = 0; i < forward_threads_; ++i) {
      roles.push_back({.name = replica_.prefix + "forward-" + std::to_string(i),
                       .run = [this, i](Context& me) { forward_role(me, i == 0); },
                       .device = i});
    }
    for (int i = 0; i < backward_threads_; ++i) {
      roles.push_back({.name = replica_.prefix + "backward-" + std::to_string(i),
                       .run = [this](Context& me) { backward_role(me); },
                       .device = forward_threads_ + i});
    }
    return roles;
  }

 private:
  void forward_role(Context& me, bool is_first) {
    for (; is_first && unissued_permits_ > 0; --unissued_permits_) send(me, permits_, Permit{});
    for (;;) {
      receive(me, permits_);
      const auto batch = replica_.source.next(me);
      if (!batch) break;
      Forwarded forwarded;
      const std::vector<Snapshot> weights = begin_step(me, replica_, stage_, batch->index);
      forwarded.pass = forward_pass(me, replica_, stage_, weights, batch->input, batch->index);
      forwarded.grad_output = loss_gradient(me, replica_, stage_, forwarded.pass, batch->target);
      send(me, passes_, std::move(forwarded));
    }
    send(me, permits_, Permit{});
    if (forwarding_.leave(me)) {
      for (int i = 0; i < backward_threads_; ++i) send(me, passes_, Forwarded{});
    }
  }

  void backward_role(Context& me) {
    for (;;) {
      Forwarded forwarded = receive(me, passes_);
      if (forwarded.pass.empty()) return;
      const std::int64_t step = forwarded.pass.batch();
      backward_pass(me, replica_, stage_, std::move(forwarded.pass), std::move(forwarded.grad_output), publish_, step);
      end_step(me, replica_, stage_, step);
      send(me, permits_, Permit{});
    }
  }

  Replica& replica_;
  Stage stage_;
  int forward_threads_, backward_threads_;
  Publish publish_;
  int unissued_permits_;  // of the first forward role alone
  Channel<Permit> permits_;
  Channel<Forwarded> passes_;
  LastToLeave forwarding_;
};

/// One pass less than there are threads keeps all processors busy when they are as many as the passes, and gradients fresher.
int default_passes_in_flight(int forward_threads, int backward_threads) {
  return std::max(2, forward_threads + backward_threads - 1);
}

void choose_passes_in_flight(OptionValues& values, const RunFacts&) {
  if (values.get<int>("max-in-flight") > 0) return;
  values.set("max-in-flight", default_passes_in_flight(values.get<int>("forward-threads"), values.get<int>("backward-threads")));
}

}  // namespace

ScheduleEntry schedule_detail::pd_asgd() {
  return {.name = "pd-asgd",
          .summary = "separate forward and backward threads, layer-wise updates (--forward-threads, --backward-threads)",
          .paper = "Fokam et al. 2024, arXiv 2410.05985",
          .width =
              [](const ScheduleOptions& options) {
                return options.values.get<int>("forward-threads") + options.values.get<int>("backward-threads");
              },
          .make = [](Replica& replica, const ScheduleOptions& options) { return std::make_unique<PdAsgd>(replica, options); },
          .stale_weights = {StaleWeights::stashed, StaleWeights::live},
          .why_no_other =
              "backward threads would compute the forward pass again, which leaves the forward threads nothing to do: "
              "use stashed or live",
          .options = {{.name = "forward-threads", .usual = 1, .help = "pd-asgd: forward threads F", .low = 1, .high = 1 << 20},
                      {.name = "backward-threads", .usual = 2, .help = "pd-asgd: backward threads B", .low = 1, .high = 1 << 20},
                      {.name = "max-in-flight",
                       .usual = 0,
                       .help = "pd-asgd: passes in flight at most; 0: F + B - 1, at least 2",
                       .low = 0,
                       .high = 1 << 20}},
          .complete = choose_passes_in_flight};
}

}  // namespace rubato
