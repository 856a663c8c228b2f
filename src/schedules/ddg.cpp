#include <deque>
#include <optional>

#include "rubato/core/error.h"
#include "rubato/schedules/schedule.h"

namespace rubato {
namespace {

/// Travels upwards with the labels; without a batch: the segment ends here.
struct Activation final : Message {
  std::int64_t index = -1;
  torch::Tensor output, target;
  std::size_t bytes() const override { return output.defined() ? output.nbytes() + target.nbytes() : 0; }
  std::int64_t batch() const override { return index; }
};

/// Travels downwards: gradient of the loss with respect to an activation.
struct ErrorGradient final : Message {
  std::int64_t index = -1;
  torch::Tensor grad;
  std::size_t bytes() const override { return grad.nbytes(); }
  std::int64_t batch() const override { return index; }
};

/// DDG, decoupled parallel backpropagation with delayed gradients (Huo et al. 2018). Module k of K applies at iteration t the
/// gradient of batch t - (K - k); before that it has none and its version advances without an update:
///   w_k(t+1) = w_k(t) - gamma * grad_k f_{x(t-K+k)}(w(t-K+k)).
/// Every module forwards batch t with w_k(t), then goes back through the oldest pass it holds with the error gradient that the
/// module above produced in the iteration before. Dataflow through bounded queues fixes the result whatever the timing.
/// Nothing is flushed at the end of a segment: K - k passes stay in flight, and the next segment (or a resumed run) goes on.
class DdgStage {
 public:
  DdgStage(Replica& replica, int first, int last, int delay, int number, Publish publish)
      : replica_(replica),
        stage_(replica.model, first, last, replica.stage),
        delay_(static_cast<std::size_t>(delay)),
        publish_(publish),
        below_{{replica.prefix + "activation-" + std::to_string(number - 1), 1}},
        above_{{replica.prefix + "activation-" + std::to_string(number), 1}},
        grad_below_{{replica.prefix + "gradient-" + std::to_string(number - 1), 2}},
        grad_above_{{replica.prefix + "gradient-" + std::to_string(number), 2}},
        is_first_(number == 0) {}

  void run(Context& me) {
    while (auto work = next(me)) {
      const std::int64_t step = work->index;
      iterate(me, std::move(*work));
      end_step(me, replica_, stage_, step);
    }
    if (!is_top()) send(me, above_, Activation{});
    if (expects_gradient()) arrived_ = receive(me, grad_above_);
  }

  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  bool is_top() const { return delay_ == 0; }
  /// The module above has sent a gradient for the oldest pass that this module holds, or will before its segment ends.
  bool expects_gradient() const { return !is_top() && !arrived_ && in_flight_.size() == delay_; }

  std::optional<Activation> next(Context& me) {
    Activation work;
    if (is_first_) {
      auto batch = replica_.source.next(me);
      if (!batch) return std::nullopt;
      work.index = batch->index;
      work.output = std::move(batch->input);
      work.target = std::move(batch->target);
    } else {
      work = receive(me, below_);
      if (work.index < 0) return std::nullopt;
    }
    return work;
  }

  void iterate(Context& me, Activation work) {
    const std::int64_t step = work.index;
    const std::vector<Snapshot> weights = begin_step(me, replica_, stage_, step);
    Pass pass = forward_pass(me, replica_, stage_, weights, work.output, step);
    torch::Tensor grad;
    if (is_top()) {
      grad = loss_gradient(me, replica_, stage_, pass, work.target);
    } else {
      Activation up;
      up.index = work.index;
      up.output = pass.output();
      up.target = std::move(work.target);
      send(me, above_, std::move(up));
    }
    in_flight_.push_back(std::move(pass));
    if (in_flight_.size() <= delay_) {
      for (int block = stage_.first(); block < stage_.last(); ++block) replica_.store.skip(me, block);
      return;
    }
    if (!is_top()) grad = take_gradient(me);
    Pass oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    const std::int64_t batch = oldest.batch();
    grad = backward_pass(me, replica_, stage_, std::move(oldest), std::move(grad), publish_, step);
    if (!is_first_) {
      ErrorGradient down;
      down.index = batch;
      down.grad = std::move(grad);
      send(me, grad_below_, std::move(down));
    }
  }

  torch::Tensor take_gradient(Context& me) {
    ErrorGradient gradient = arrived_ ? std::move(*arrived_) : receive(me, grad_above_);
    arrived_.reset();
    if (gradient.index != in_flight_.front().batch()) {
      throw std::logic_error("ddg: gradient of batch " + std::to_string(gradient.index) + " met the pass of batch " +
                             std::to_string(in_flight_.front().batch()));
    }
    return std::move(gradient.grad);
  }

  Replica& replica_;
  Stage stage_;
  std::size_t delay_;
  Publish publish_;
  Channel<Activation> below_, above_;
  Channel<ErrorGradient> grad_below_, grad_above_;
  bool is_first_;
  std::deque<Pass> in_flight_;  // oldest first; at most delay_ between iterations
  std::optional<ErrorGradient> arrived_;
};

// A graph cannot be saved, but what made it can: the input and the weights that the pass read. Running forward again from these
// gives the same graph bit for bit, because dropout depends on (seed, batch, block) alone.
void DdgStage::save(torch::serialize::OutputArchive& archive) const {
  archive.write("count", torch::IValue(static_cast<std::int64_t>(in_flight_.size())));
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    const Pass& pass = in_flight_[i];
    torch::serialize::OutputArchive part(archive.compilation_unit());
    part.write("batch", torch::IValue(pass.batch()));
    part.write("input", torch::IValue(pass.input()));
    for (int local = 0; local < stage_.size(); ++local) {
      const Snapshot& weights = pass.weights(local);
      const std::string key = std::to_string(local);
      part.write("parameters" + key, torch::IValue(weights.parameters->tensors));
      part.write("buffers" + key, torch::IValue(weights.buffers->tensors));
      part.write("version" + key, torch::IValue(weights.parameters->version));
      part.write("clock" + key, torch::IValue(weights.parameters->clock));
    }
    archive.write("pass" + std::to_string(i), part);
  }
  if (arrived_) {
    archive.write("gradient_batch", torch::IValue(arrived_->index));
    archive.write("gradient", torch::IValue(arrived_->grad));
  }
}

void DdgStage::load(torch::serialize::InputArchive& archive) {
  torch::IValue value;
  archive.read("count", value);
  const std::int64_t count = value.toInt();
  in_flight_.clear();
  for (std::int64_t i = 0; i < count; ++i) {
    torch::serialize::InputArchive part;
    archive.read("pass" + std::to_string(i), part);
    torch::IValue batch, input;
    part.read("batch", batch);
    part.read("input", input);
    std::vector<Snapshot> weights;
    for (int local = 0; local < stage_.size(); ++local) {
      const std::string key = std::to_string(local);
      torch::IValue parameters, buffers, version, clock;
      part.read("parameters" + key, parameters);
      part.read("buffers" + key, buffers);
      part.read("version" + key, version);
      part.read("clock" + key, clock);
      weights.push_back({std::make_shared<TensorSet>(TensorSet{parameters.toTensorVector(), version.toInt(), clock.toInt()}),
                         std::make_shared<TensorSet>(TensorSet{buffers.toTensorVector()})});
    }
    in_flight_.push_back(stage_.forward(std::move(weights), input.toTensor(), batch.toInt()));
  }
  torch::IValue gradient_batch, gradient;
  arrived_.reset();
  if (archive.try_read("gradient_batch", gradient_batch)) {
    archive.read("gradient", gradient);
    arrived_.emplace();
    arrived_->index = gradient_batch.toInt();
    arrived_->grad = gradient.toTensor();
  }
}

class Ddg final : public Schedule {
 public:
  Ddg(Replica& replica, const ScheduleOptions& options) : prefix_(replica.prefix) {
    std::vector<int> edges = {0};
    edges.insert(edges.end(), options.cuts.begin(), options.cuts.end());
    edges.push_back(static_cast<int>(replica.model.blocks.size()));
    const int stages = static_cast<int>(edges.size()) - 1;
    for (int k = 0; k < stages; ++k) {
      stages_.push_back(std::make_unique<DdgStage>(replica, edges[k], edges[k + 1], stages - 1 - k, k, options.publish));
    }
  }

  std::vector<Role> roles() override {
    std::vector<Role> roles;
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      roles.push_back({.name = prefix_ + "ddg-" + std::to_string(k),
                       .run = [stage = stages_[k].get()](Context& me) { stage->run(me); },
                       .device = static_cast<int>(k)});
    }
    return roles;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      torch::serialize::OutputArchive part(archive.compilation_unit());
      stages_[k]->save(part);
      archive.write("stage" + std::to_string(k), part);
    }
  }

  void load(torch::serialize::InputArchive& archive) override {
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      torch::serialize::InputArchive part;
      archive.read("stage" + std::to_string(k), part);
      stages_[k]->load(part);
    }
  }

 private:
  std::string prefix_;
  std::vector<std::unique_ptr<DdgStage>> stages_;
};

}  // namespace

std::unique_ptr<Schedule> make_ddg(Replica& replica, const ScheduleOptions& options) {
  return std::make_unique<Ddg>(replica, options);
}

}  // namespace rubato
