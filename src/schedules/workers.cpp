#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"
#include "schedules/entries.h"

namespace rubato {
namespace {

/// Backpropagation, one batch after the other; with several workers on one replica, Hogwild! (Niu et al. 2011): each worker
/// reads the newest published weights, computes a gradient and applies it without waiting for the others. Momentum belongs to
/// the replica, not to the worker.
void worker_role(Context& me, const Replica& replica, const Stage& stage, Publish publish) {
  while (const auto batch = replica.source.next(me)) {
    const std::vector<Snapshot> weights = begin_step(me, replica, stage, batch->index);
    Pass pass = forward_pass(me, replica, stage, weights, batch->input, batch->index);
    torch::Tensor grad = loss_gradient(me, replica, stage, pass, batch->target);
    backward_pass(me, replica, stage, std::move(pass), std::move(grad), publish, batch->index);
    end_step(me, replica, stage, batch->index);
  }
}

class Workers final : public Schedule {
 public:
  Workers(Replica& replica, int workers, Publish publish)
      : replica_(replica),
        stage_(replica.model, 0, static_cast<int>(replica.model.blocks.size()), replica.stage),
        workers_(workers),
        publish_(publish) {}

  std::vector<Role> roles() override {
    std::vector<Role> roles;
    for (int i = 0; i < workers_; ++i) {
      roles.push_back({.name = replica_.prefix + "worker-" + std::to_string(i),
                       .run = [this](Context& me) { worker_role(me, replica_, stage_, publish_); },
                       .device = i});
    }
    return roles;
  }

 private:
  Replica& replica_;
  Stage stage_;
  int workers_;
  Publish publish_;
};

}  // namespace

ScheduleEntry schedule_detail::serial() {
  return {.name = "serial",
          .summary = "backpropagation, one batch after the other; the reference for all others",
          .make = [](Replica& replica,
                     const ScheduleOptions& options) { return std::make_unique<Workers>(replica, 1, options.publish); },
          .fixed_protocol = true,
          .synchronous = true,
          .whole_steps = true};
}

ScheduleEntry schedule_detail::hogwild() {
  const auto workers = [](const ScheduleOptions& options) { return options.values.get<int>("workers"); };
  return {.name = "hogwild",
          .summary = "several workers on one replica, each applies its gradients without waiting (--workers)",
          .paper = "Niu et al. 2011",
          .width = workers,
          .make =
              [=](Replica& replica, const ScheduleOptions& options) {
                return std::make_unique<Workers>(replica, workers(options), options.publish);
              },
          .options = {workers_option()}};
}

}  // namespace rubato
