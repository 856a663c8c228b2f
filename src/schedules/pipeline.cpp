#include "rubato/schedules/pipeline.h"

#include <fmt/format.h>

#include <cstdint>
#include <map>

#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"
#include "rubato/wire/portable.h"
#include "schedules/entries.h"

namespace rubato {
namespace {

/// A micro-batch on its way up, with its labels; without a batch: the segment ends here.
struct MicroBatch final : Portable<MicroBatch> {
  std::int64_t index = -1;         // of the batch
  int number = 0, count = 1;       // which of how many
  std::int64_t batch_samples = 0;  // of the whole batch
  torch::Tensor output, target;
  std::size_t bytes() const override { return output.defined() ? output.nbytes() + target.nbytes() : 0; }
  std::int64_t batch() const override { return index; }
  static auto members(auto& m) { return std::tie(m.index, m.number, m.count, m.batch_samples, m.output, m.target); }
};

/// Gradient of the step's loss with respect to the activations of a micro-batch, on its way down.
struct MicroGradient final : Portable<MicroGradient> {
  std::int64_t index = -1;
  int number = 0;
  torch::Tensor grad;
  std::size_t bytes() const override { return grad.nbytes(); }
  std::int64_t batch() const override { return index; }
  static auto members(auto& m) { return std::tie(m.index, m.number, m.grad); }
};

/// At most `most` parts whose sizes differ by one at most, the larger ones first.
std::map<int, MicroBatch> split(const Batch& batch, int most) {
  const std::int64_t samples = batch.input.size(0);
  const auto count = static_cast<int>(std::min<std::int64_t>(most, samples));
  const auto inputs = torch::tensor_split(batch.input, count), targets = torch::tensor_split(batch.target, count);
  std::map<int, MicroBatch> parts;
  for (int m = 0; m < count; ++m) {
    MicroBatch& part = parts[m];
    part.index = batch.index;
    part.number = m;
    part.count = count;
    part.batch_samples = samples;
    part.output = inputs[static_cast<std::size_t>(m)];
    part.target = targets[static_cast<std::size_t>(m)];
  }
  return parts;
}

/// sum += gradients, in the order of calls, which fixes the rounding. Never in place: autograd may hand out one tensor as the
/// gradient of several, the one that travels on among them.
void add(std::vector<torch::Tensor>& sum, const std::vector<torch::Tensor>& gradients) {
  if (sum.empty()) {
    sum = gradients;
    return;
  }
  for (std::size_t i = 0; i < sum.size(); ++i) {
    if (gradients[i].defined()) sum[i] = sum[i].defined() ? sum[i] + gradients[i] : gradients[i];
  }
}

template <class Key, class Value>
Value take(std::map<Key, Value>& from, const Key& key) {
  return std::move(from.extract(key).mapped());
}

/// One stage of a synchronous pipeline: does with every batch what its list says. With M micro-batches of n_m of the batch's n
/// samples it applies, once per batch,
///   g = sum over m of (n_m / n) grad f_m(w),
/// the gradient of the whole batch, summed in the order of the list's backwards. All micro-batches see the weights of the step's
/// beginning; batch-norm statistics pass from each micro-batch to the next. Nothing is in flight between batches.
class PipelineStage {
 public:
  PipelineStage(Replica& replica, int first, int last, int number, const ScheduleOptions& options)
      : replica_(replica),
        stage_(replica.model, first, last, replica.stage),
        name_(options.name),
        most_(options.values.get<int>("micro-batches")),
        number_(number),
        stages_(static_cast<int>(options.cuts.size()) + 1),
        // A batch's messages always fit, so no send waits: what the lists do not wait for, nobody waits for.
        below_{{replica.prefix + "activation-" + std::to_string(number - 1), static_cast<std::size_t>(most_)}},
        above_{{replica.prefix + "activation-" + std::to_string(number), static_cast<std::size_t>(most_)}},
        grad_below_{{replica.prefix + "gradient-" + std::to_string(number - 1), static_cast<std::size_t>(most_)}},
        grad_above_{{replica.prefix + "gradient-" + std::to_string(number), static_cast<std::size_t>(most_)}} {}

  void run(Context& me) {
    while (begin(me)) {
      const PipelinePlan plan = make_pipeline_plan(name_, stages_, work_.count);
      for (const PipelineOp& op : plan.stages[static_cast<std::size_t>(number_)]) execute(me, op);
      work_ = {};
    }
    if (!is_top()) send(me, above_, MicroBatch{});
  }

 private:
  /// The batch at hand.
  struct Work {
    std::int64_t index = -1, samples = 0;
    int count = 0;
    std::vector<Snapshot> weights;        // parameters as of the step's beginning, buffers of the newest micro-batch
    std::map<int, MicroBatch> arrived;    // by micro-batch, as the next two
    std::map<int, torch::Tensor> errors;  // gradients with respect to the stage's output
    std::map<int, Pass> live;
    std::vector<std::vector<torch::Tensor>> sums;  // by block and parameter
    StepReport report;
    int forwards = 0, losses = 0;
  };

  bool is_first() const { return number_ == 0; }
  bool is_top() const { return number_ == stages_ - 1; }

  /// False at the end of the segment.
  bool begin(Context& me) {
    if (is_first()) {
      const auto batch = replica_.source.next(me);
      if (!batch) return false;
      work_.arrived = split(*batch, most_);
    } else {
      MicroBatch micro = receive(me, below_);
      if (micro.index < 0) return false;
      work_.arrived.emplace(micro.number, std::move(micro));
    }
    const MicroBatch& any = work_.arrived.begin()->second;
    work_.index = any.index;
    work_.count = any.count;
    work_.samples = any.batch_samples;
    work_.sums.resize(static_cast<std::size_t>(stage_.size()));
    work_.report = {.batch = work_.index, .samples = work_.samples};
    work_.weights = begin_step(me, replica_, stage_, work_.index);
    return true;
  }

  void execute(Context& me, const PipelineOp& op) {
    switch (op.kind) {
      case PipelineOp::forward:
        return forward(me, op.micro_batch);
      case PipelineOp::backward:
        return backward(me, op.micro_batch);
      case PipelineOp::step:
        return step(me);
    }
  }

  void forward(Context& me, int m) {
    MicroBatch micro = next_micro_batch(me, m);
    if (work_.forwards++ > 0) refresh_statistics(me);
    // Dropout draws by the number of the pass: micro-batch m of batch t is pass t * M + m.
    const std::int64_t pass_number = work_.index * most_ + m;
    const double seconds = seconds_of_part(&BlockCost::forward, micro.output.size(0));
    Pass pass;
    std::vector<std::vector<torch::Tensor>> buffers;
    me.compute({ComputeKind::forward, m}, work_.index, seconds,
               [&] { pass = stage_.forward(work_.weights, micro.output, pass_number, &buffers); });
    for (int local = 0; local < stage_.size(); ++local) {
      const auto at = static_cast<std::size_t>(local);
      replica_.store.merge_buffers(me, stage_.first() + local, work_.weights[at].buffers, buffers[at]);
    }
    if (is_top()) {
      work_.errors[m] = loss_gradient_of(me, pass, micro.target);
    } else {
      micro.output = pass.output();
      send(me, above_, std::move(micro));
    }
    work_.live.emplace(m, std::move(pass));
  }

  MicroBatch next_micro_batch(Context& me, int m) {
    while (!work_.arrived.contains(m)) {
      MicroBatch micro = receive(me, below_);
      work_.arrived.emplace(micro.number, std::move(micro));
    }
    return take(work_.arrived, m);
  }

  /// Each micro-batch's forward starts from the statistics that the one before it left.
  void refresh_statistics(Context& me) {
    for (int local = 0; local < stage_.size(); ++local) {
      TensorSetPtr& buffers = work_.weights[static_cast<std::size_t>(local)].buffers;
      if (!buffers->tensors.empty()) buffers = replica_.store.read(me, stage_.first() + local).buffers;
    }
  }

  /// Gradient of the micro-batch's share in the mean loss of the batch, which is reported once it is complete.
  torch::Tensor loss_gradient_of(Context& me, const Pass& pass, const torch::Tensor& target) {
    LossResult result;
    const double share = share_of(pass.input().size(0));
    me.compute(ComputeKind::loss, work_.index, replica_.work.loss * share, [&] {
      result = stage_.loss(pass, target);
      if (work_.count > 1) result.grad_output = result.grad_output * share;
    });
    work_.report.loss += work_.count > 1 ? result.loss * share : result.loss;
    work_.report.correct += result.correct;
    work_.report.predictions += result.predictions;
    if (++work_.losses == work_.count) {
      work_.report.time = me.now();
      replica_.observer.step(work_.report);
    }
    return result.grad_output;
  }

  void backward(Context& me, int m) {
    torch::Tensor grad = next_error(me, m);
    Pass pass = take(work_.live, m);
    const double seconds = seconds_of_part(&BlockCost::backward, pass.input().size(0));
    me.compute({ComputeKind::backward, m}, work_.index, seconds, [&] {
      for (int local = stage_.size() - 1; local >= 0; --local) {
        add(work_.sums[static_cast<std::size_t>(local)], stage_.backward(pass, local, grad));
      }
    });
    if (is_first()) return;
    MicroGradient down;
    down.index = work_.index;
    down.number = m;
    down.grad = std::move(grad);
    send(me, grad_below_, std::move(down));
  }

  torch::Tensor next_error(Context& me, int m) {
    while (!work_.errors.contains(m)) {
      MicroGradient gradient = receive(me, grad_above_);
      work_.errors.emplace(gradient.number, std::move(gradient.grad));
    }
    return take(work_.errors, m);
  }

  void step(Context& me) {
    double seconds = 0;
    for (int block = stage_.first(); block < stage_.last(); ++block) seconds += seconds_of(replica_, block, &BlockCost::update);
    me.compute(ComputeKind::update, work_.index, seconds, [] {});  // the time passes here, the arithmetic is the publications'
    for (int local = stage_.size() - 1; local >= 0; --local) {
      const auto at = static_cast<std::size_t>(local);
      replica_.hooks.gradient_ready(me, replica_.store,
                                    {.block = stage_.first() + local,
                                     .gradients = std::move(work_.sums[at]),
                                     .clock_read = work_.weights[at].parameters->clock,
                                     .step = work_.index,
                                     .batch = work_.index,
                                     .share = share_of_a_batch(replica_, work_.samples)});
    }
    end_step(me, replica_, stage_, work_.index);
  }

  double share_of(std::int64_t samples) const { return static_cast<double>(samples) / static_cast<double>(work_.samples); }

  double seconds_of_part(double BlockCost::*part, std::int64_t samples) const {
    double seconds = 0;
    for (int block = stage_.first(); block < stage_.last(); ++block) seconds += seconds_of(replica_, block, part);
    return seconds * share_of(samples);
  }

  Replica& replica_;
  Stage stage_;
  std::string name_;
  int most_, number_, stages_;
  Channel<MicroBatch> below_, above_;
  Channel<MicroGradient> grad_below_, grad_above_;
  Work work_;
};

/// GPipe, 1F1B, and whatever else is a list of operations.
class Pipeline final : public Schedule {
 public:
  Pipeline(Replica& replica, const ScheduleOptions& options)
      : name_(replica.prefix + options.name + "-"), only_(replica.stage_here) {
    check_stale_weights(options.name, replica.stage.stale_weights);
    for (const BlockRange range : stage_ranges(options.cuts, static_cast<int>(replica.model.blocks.size()))) {
      const int number = static_cast<int>(stages_.size());
      stages_.push_back(std::make_unique<PipelineStage>(replica, range.first, range.last, number, options));
    }
  }

  std::vector<Role> roles() override {
    std::vector<Role> roles;
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      if (only_ && static_cast<std::size_t>(*only_) != k) continue;
      roles.push_back({.name = name_ + std::to_string(k),
                       .run = [stage = stages_[k].get()](Context& me) { stage->run(me); },
                       .device = static_cast<int>(k)});
    }
    return roles;
  }

 private:
  std::string name_;
  std::optional<int> only_;
  std::vector<std::unique_ptr<PipelineStage>> stages_;
};

ScheduleEntry pipeline(const std::string& name, const std::string& summary, const std::string& paper) {
  return {.name = name,
          .summary = summary + " (--stages, --cuts, --micro-batches)",
          .paper = paper,
          .width = schedule_detail::one_role_per_stage,
          .make = [](Replica& replica, const ScheduleOptions& options) { return std::make_unique<Pipeline>(replica, options); },
          .uses_cuts = true,
          .publishes = false,
          .fixed_protocol = true,
          .synchronous = true,
          .stale_weights = {StaleWeights::stashed},
          .why_no_other = "it changes no weights between a forward pass and its backward pass; leave --stale-weights at stashed",
          .options = {{.name = "micro-batches",
                       .usual = 4,
                       .help = "gpipe, 1f1b: parts of a batch that are in the pipeline at once",
                       .low = 1,
                       .high = 1 << 20}}};
}

}  // namespace

ScheduleEntry schedule_detail::gpipe() {
  return pipeline("gpipe", "synchronous pipeline of K stages: micro-batches forward, then back",
                  "Huang et al. 2019, arXiv 1811.06965");
}

ScheduleEntry schedule_detail::one_f_one_b() {
  return pipeline("1f1b", "as gpipe; forwards and backwards alternate, so that fewer activations live",
                  "Narayanan et al. 2021, arXiv 2006.09503");
}

}  // namespace rubato
