#include <cstdint>
#include <stdexcept>

#include "rubato/core/error.h"
#include "schedules/entries.h"
#include "schedules/staged.h"

namespace rubato {
namespace {

/// A stage of DNI, decoupled neural interfaces with synthetic gradients (Jaderberg et al. 2017). At the cut above it stands a
/// gradient model M. In step t the stage computes h = f(x), hands h up, and at once goes back and updates with M(h) in place of
/// the error gradient. The stage above does the same and returns the gradient of its own (predicted or, at the top, true) error
/// with respect to h, from which M learns: update and backward are unlocked, forward is not.
///
/// When that gradient arrives depends on timing, when M learns from it does not: M learns from step t - 1 at the end of step t.
/// So nobody waits for a stage that works on the same batch, and the result is the same whatever the timing. The last activation
/// stays in the stage at the end of a segment, with its gradient, until the next segment or a resumed run goes on.
class DniStage {
 public:
  DniStage(Replica& replica, BlockRange blocks, StagePlace place, std::unique_ptr<GradientModel> model, Publish publish)
      : replica_(replica),
        stage_(replica.model, blocks.first, blocks.last, replica.stage),
        place_(std::move(place)),
        model_(std::move(model)),
        publish_(publish) {}

  void run(Context& me) {
    while (auto work = next_work(me, replica_, place_)) {
      const std::int64_t step = work->index;
      iterate(me, std::move(*work));
      end_step(me, replica_, stage_, step);
    }
    if (place_.is_top()) return;
    send(me, place_.above, Activation{});
    if (waiting_ && !arrived_) arrived_ = receive(me, place_.grad_above);
  }

  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  void iterate(Context& me, Activation work) {
    const std::int64_t step = work.index;
    const std::vector<Snapshot> weights = begin_step(me, replica_, stage_, step);
    Pass pass = forward_pass(me, replica_, stage_, weights, work.output, step);
    const AtCut cut{step, pass.output(), std::move(work.target)};
    torch::Tensor grad;
    if (place_.is_top()) {
      grad = loss_gradient(me, replica_, stage_, pass, cut.target);
    } else {
      send_up(me, place_, step, cut.activation, cut.target);
      const double seconds = replica_.work.per_operation * model_->operations(cut.activation).predict;
      me.compute(ComputeKind::predict, step, seconds, [&] { grad = model_->predict(cut); });
    }
    grad = backward_pass(me, replica_, stage_, std::move(pass), std::move(grad), publish_, step);
    if (!place_.is_first()) send_down(me, place_, step, std::move(grad));
    if (place_.is_top()) return;
    learn(me);
    waiting_ = cut;
  }

  void learn(Context& me) {
    if (!waiting_) return;
    const ErrorGradient gradient = arrived_ ? std::move(*arrived_) : receive(me, place_.grad_above);
    arrived_.reset();
    if (gradient.index != waiting_->batch) {
      throw std::logic_error("dni: gradient of batch " + std::to_string(gradient.index) + " met the activation of batch " +
                             std::to_string(waiting_->batch));
    }
    const double seconds = replica_.work.per_operation * model_->operations(waiting_->activation).learn;
    me.compute(ComputeKind::learn, gradient.index, seconds, [&] { model_->learn(*waiting_, gradient.grad); });
  }

  Replica& replica_;
  Stage stage_;
  StagePlace place_;
  std::unique_ptr<GradientModel> model_;  // none at the top
  Publish publish_;
  std::optional<AtCut> waiting_;          // that the model has not learned from yet
  std::optional<ErrorGradient> arrived_;  // for it, taken out of the channel at the end of a segment
};

void DniStage::save(torch::serialize::OutputArchive& archive) const {
  if (place_.is_top()) return;
  torch::serialize::OutputArchive model(archive.compilation_unit());
  model_->save(model);
  archive.write("model", model);
  archive.write("waiting", torch::IValue(waiting_.has_value()));
  if (!waiting_) return;
  archive.write("activation", torch::IValue(waiting_->activation));
  archive.write("target", torch::IValue(waiting_->target));
  save_gradient(archive, *arrived_);
}

void DniStage::load(torch::serialize::InputArchive& archive) {
  if (place_.is_top()) return;
  torch::serialize::InputArchive model;
  archive.read("model", model);
  model_->load(model);
  waiting_.reset();
  arrived_.reset();
  torch::IValue waiting, activation, target;
  archive.read("waiting", waiting);
  if (!waiting.toBool()) return;
  archive.read("activation", activation);
  archive.read("target", target);
  arrived_ = load_gradient(archive);
  waiting_ = AtCut{arrived_->index, activation.toTensor(), target.toTensor()};
}

}  // namespace

std::unique_ptr<Schedule> make_dni(Replica& replica, const ScheduleOptions& options, const MakeGradientModel& make_model) {
  return std::make_unique<StagedSchedule<DniStage>>(replica, options.cuts, "dni", [&](BlockRange blocks, int number, int count) {
    const bool is_top = number == count - 1;
    return std::make_unique<DniStage>(replica, blocks, StagePlace(replica, number, count, /*ahead=*/1),
                                      is_top ? nullptr : make_model(number), options.publish);
  });
}

namespace {

std::unique_ptr<Schedule> make_with_synthetic_gradients(Replica& replica, const ScheduleOptions& options) {
  const OptionValues& values = options.values;
  const GradientModelOptions model{.layers = values.get<int>("dni-layers"),
                                   .width = values.get<int>("dni-width"),
                                   .learning_rate = values.get<double>("dni-lr"),
                                   .labels = values.get<bool>("dni-labels"),
                                   .classes = options.classes};
  if (model.labels && model.classes < 1) throw UsageError("--dni-labels needs data with classes");
  return make_dni(replica, options, [&](int cut) { return make_synthetic_gradient(model, replica.stage.seed, cut); });
}

}  // namespace

ScheduleEntry schedule_detail::dni() {
  return {
      .name = "dni",
      .summary =
          "each stage updates at once with a gradient that a small model predicts at its cut (--stages, --cuts, --dni-labels)",
      .paper = "Jaderberg et al. 2017, arXiv 1608.05343",
      .width = one_role_per_stage,
      .make = make_with_synthetic_gradients,
      .uses_cuts = true,
      .fixed_protocol = true,
      .options = {{.name = "dni-labels", .usual = false, .help = "dni: gradient models see the labels too (cDNI)"},
                  {.name = "dni-layers",
                   .usual = 2,
                   .help = "dni: hidden layers of a gradient model; 0: linear",
                   .low = 0,
                   .high = 1 << 20},
                  {.name = "dni-width",
                   .usual = 256,
                   .help = "dni: units of a hidden layer, except between images",
                   .low = 1,
                   .high = 1 << 20},
                  {.name = "dni-lr",
                   .usual = 1e-3,
                   .help = "dni: learning rate of the gradient models, which have an Adam of their own",
                   .low = 0}}};
}

}  // namespace rubato
