#include <cstdint>
#include <optional>

#include "rubato/context/last_to_leave.h"
#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"

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
        forward_threads_(options.forward_threads),
        backward_threads_(options.backward_threads),
        publish_(options.publish),
        permits_{{replica.prefix + "permits", static_cast<std::size_t>(options.max_in_flight)}},
        passes_{{replica.prefix + "passes", static_cast<std::size_t>(options.max_in_flight + options.backward_threads)}},
        unissued_permits_(options.max_in_flight),
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
  Channel<Permit> permits_;
  Channel<Forwarded> passes_;
  int unissued_permits_;  // of the first forward role alone
  LastToLeave forwarding_;
};

}  // namespace

std::unique_ptr<Schedule> make_pd_asgd(Replica& replica, const ScheduleOptions& options) {
  ScheduleOptions resolved = options;
  if (resolved.max_in_flight == 0) resolved.max_in_flight = default_passes_in_flight(options);
  return std::make_unique<PdAsgd>(replica, resolved);
}

}  // namespace rubato
