#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubato/model/model.h"
#include "rubato/schedules/schedule.h"
#include "rubato/wire/portable.h"

namespace rubato {

/// Travels upwards with the labels; without a batch: the segment ends here.
struct Activation final : Portable<Activation> {
  std::int64_t index = -1;
  torch::Tensor output, target;
  std::size_t bytes() const override { return output.defined() ? output.nbytes() + target.nbytes() : 0; }
  std::int64_t batch() const override { return index; }
  static auto members(auto& m) { return std::tie(m.index, m.output, m.target); }
};

/// Travels downwards: gradient of the loss with respect to an activation.
struct ErrorGradient final : Portable<ErrorGradient> {
  std::int64_t index = -1;
  torch::Tensor grad;
  std::size_t bytes() const override { return grad.nbytes(); }
  std::int64_t batch() const override { return index; }
  static auto members(auto& m) { return std::tie(m.index, m.grad); }
};

/// Where one of `count` stages stands and how it reaches its neighbours. Stage 0 takes batches from the source.
struct StagePlace {
  /// `ahead`: how many iterations a stage may be ahead of the one above it before the protocol makes it wait for a gradient. The
  /// channels hold as many messages, so that waiting for room never adds to that.
  StagePlace(const Replica& replica, int number, int count, int ahead);
  bool is_first() const { return number == 0; }
  bool is_top() const { return number == count - 1; }

  int number, count;
  Channel<Activation> below, above;
  Channel<ErrorGradient> grad_below, grad_above;
};

/// What stage `place` works on next: a batch of the source, or what the stage below made of one. Nothing at the end.
std::optional<Activation> next_work(Context& me, const Replica& replica, const StagePlace& place);

/// Hands what the stage made of batch `index` to the stage above, and its error gradient to the stage below.
void send_up(Context& me, const StagePlace& place, std::int64_t index, torch::Tensor output, torch::Tensor target);
void send_down(Context& me, const StagePlace& place, std::int64_t index, torch::Tensor grad);

/// A graph cannot be saved, but what made it can: the input and the weights that the pass read. Running forward again from these
/// gives the same graph bit for bit, because dropout depends on (seed, batch, block) alone. Of a pass that waits to be replayed
/// the input is enough.
void save_pass(torch::serialize::OutputArchive& archive, const Stage& stage, const Pass& pass);
Pass load_pass(torch::serialize::InputArchive& archive, const Stage& stage);

void save_gradient(torch::serialize::OutputArchive& archive, const ErrorGradient& gradient);
ErrorGradient load_gradient(torch::serialize::InputArchive& archive);

/// A schedule with one role per stage. `StageRole` has `run(Context&)`, `save` and `load`.
template <class StageRole>
class StagedSchedule final : public Schedule {
 public:
  /// Roles are called `prefix` + "name-0", ...; `make(range, number, count)` makes the stages.
  template <class Make>
  StagedSchedule(const Replica& replica, const std::vector<int>& cuts, const std::string& name, const Make& make)
      : only_(replica.stage_here), role_name_(replica.prefix + name + "-") {
    const auto ranges = stage_ranges(cuts, static_cast<int>(replica.model.blocks.size()));
    const int count = static_cast<int>(ranges.size());
    for (int k = 0; k < count; ++k) stages_.push_back(make(ranges[static_cast<std::size_t>(k)], k, count));
  }

  std::vector<Role> roles() override {
    std::vector<Role> roles;
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      if (!is_here(k)) continue;
      roles.push_back({.name = role_name_ + std::to_string(k),
                       .run = [stage = stages_[k].get()](Context& me) { stage->run(me); },
                       .device = static_cast<int>(k)});
    }
    return roles;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      if (!is_here(k)) continue;
      torch::serialize::OutputArchive part(archive.compilation_unit());
      stages_[k]->save(part);
      archive.write("stage" + std::to_string(k), part);
    }
  }

  void load(torch::serialize::InputArchive& archive) override {
    for (std::size_t k = 0; k < stages_.size(); ++k) {
      torch::serialize::InputArchive part;
      if (is_here(k) && archive.try_read("stage" + std::to_string(k), part)) stages_[k]->load(part);
    }
  }

 private:
  bool is_here(std::size_t stage) const { return !only_ || static_cast<std::size_t>(*only_) == stage; }

  std::optional<int> only_;
  std::string role_name_;
  std::vector<std::unique_ptr<StageRole>> stages_;
};

}  // namespace rubato
