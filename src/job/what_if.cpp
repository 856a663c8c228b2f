#include "rubato/job/what_if.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <numeric>

#include "rubato/config/entries.h"
#include "rubato/core/error.h"
#include "rubato/core/random.h"
#include "rubato/cost/profile.h"
#include "rubato/cost/timings.h"
#include "rubato/io/files.h"
#include "rubato/observe/meter.h"

namespace rubato {
namespace {

/// What computations beside the passes cost by the plan of the recorded run, by role: what a plan that costs otherwise is
/// compared with.
using AsideCosts = std::map<std::string, std::array<double, asides.size()>>;

/// How much longer than on average the recorded passes of a role took, drawn anew for every piece of work; of computations beside
/// the passes the recorded mean, scaled to their cost. A role that was not there takes from those of all.
class Jitter {
 public:
  /// `costs`: filled by a plan like the recorded run (`is_like_it`), read by others.
  Jitter(const Timings& timings, std::uint64_t seed, std::shared_ptr<AsideCosts> costs, bool is_like_it)
      : seed_(seed), aside_(timings.aside), costs_(std::move(costs)), is_like_it_(is_like_it) {
    for (const auto& [role, seconds] : timings.samples) {
      const double mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
      for (const double one : seconds) ratios_[role].push_back(one / mean);
      all_.insert(all_.end(), ratios_[role].begin(), ratios_[role].end());
    }
  }

  double operator()(const std::string& role, const Computation& what, double seconds) {
    if (const auto aside = aside_of(what.kind)) return recorded(role, static_cast<std::size_t>(*aside), seconds);
    if (seconds == 0 || all_.empty()) return seconds;
    const auto stream =
        streams_.try_emplace(role, seed_, RandomUse::fault, std::initializer_list<std::uint64_t>{streams_.size(), 1});
    const auto found = ratios_.find(role);
    const std::vector<double>& ratios = found == ratios_.end() ? all_ : found->second;
    return seconds * ratios[stream.first->second.below(ratios.size())];
  }

 private:
  double recorded(const std::string& role, std::size_t aside, double seconds) {
    const auto like = aside_.contains(role) ? aside_.find(role) : aside_.begin();
    if (like == aside_.end() || like->second[aside].count == 0) return seconds;
    if (is_like_it_) (*costs_)[role][aside] = seconds;
    const double before = (*costs_)[like->first][aside];
    return like->second[aside].mean() * (before > 0 ? seconds / before : 1);
  }

  std::uint64_t seed_;
  std::map<std::string, AsideTimes> aside_;
  std::shared_ptr<AsideCosts> costs_;
  bool is_like_it_;
  std::map<std::string, std::vector<double>> ratios_;
  std::vector<double> all_;
  std::map<std::string, RandomStream> streams_;
};

/// Costs of the profile, scaled to what the passes of the run took together.
std::vector<BlockCost> recorded_costs(std::vector<BlockCost> costs, const Timings& timings) {
  double forward = 0, backward = 0;
  for (const BlockCost& cost : costs) {
    forward += cost.forward;
    backward += cost.backward;
  }
  const double passes = static_cast<double>(timings.passes);
  for (BlockCost& cost : costs) {
    if (forward > 0) cost.forward *= timings.forward / (passes * forward);
    if (backward > 0) cost.backward *= timings.backward / (passes * backward);
  }
  return costs;
}

Plan plan_like(const TrainOptions& options, const RuntimeChoice& runtime, const Timings& timings,
               const std::shared_ptr<AsideCosts>& aside, bool is_like_it) {
  Plan plan = make_plan(options, runtime);
  const double before = seconds_per_operation(plan.costs, 1);
  plan.costs = recorded_costs(plan.costs, timings);
  if (before > 0) plan.work.per_operation *= seconds_per_operation(plan.costs, 1) / before;
  if (timings.loss > 0) plan.work.loss = timings.loss / static_cast<double>(timings.passes);
  plan.platform.slowdown.clear();  // the costs were measured while all processors were at work
  plan.roles.cost = Jitter(timings, plan.options.seed, aside, is_like_it);
  plan.roles.stack_kib = RuntimeOptions{}.stack_kib;  // what comes after in this process may compute
  return plan;
}

double simulated_seconds(Plan plan, std::int64_t steps) {
  StepMeter meter;
  Job job(plan.model, plan.job(), meter);
  const auto runtime = make_runtime(plan, plan.roles);
  job.open(0, steps);
  runtime->run(job.roles(), job.units());
  return runtime->now();
}

void check_same_costs(const TrainOptions& recorded, const TrainOptions& now) {
  const auto same = [](const char* flag, const auto& a, const auto& b) {
    if (a == b) return;
    throw UsageError(fmt::format(
        "--from with another --{}: that changes what a pass costs, which is all that the recording knows; record such a run",
        flag));
  };
  same("model", recorded.model, now.model);
  same("data", recorded.data, now.data);
  same("batch-size", recorded.batch_size, now.batch_size);
  same("width", recorded.width, now.width);
  same("sequence-length", recorded.sequence_length, now.sequence_length);
  same("precision", recorded.precision, now.precision);
  same("memory-format", recorded.memory_format, now.memory_format);
  same("threads-per-role", recorded.threads_per_role, now.threads_per_role);
  for (const EntryOption& option : entry_options()) {
    if (option.kind->name != "model" && option.kind->name != "data") continue;
    const auto value = [&](const TrainOptions& options) {
      const OptionValue* found = options.values.find(option.spec.name);
      return found == nullptr ? option.spec.usual : *found;
    };
    same(option.spec.name.c_str(), value(recorded), value(now));
  }
}

}  // namespace

TrainOptions recorded_options(const std::filesystem::path& run) {
  const std::filesystem::path file = run / "config.toml";
  if (!std::filesystem::exists(run / "timings.json") || !std::filesystem::exists(run / "profile.json")) {
    throw DataError(run.string() + " holds no timings.json and profile.json: record one with `rubato train --record`");
  }
  TrainOptions options = from_toml(read_file(file), file.string());
  options.run_dir.clear();
  options.record = options.trace = options.quiet = options.json = false;
  return options;
}

Plan plan_what_if(const std::filesystem::path& run, const TrainOptions& options, RuntimeChoice runtime) {
  const TrainOptions recorded = recorded_options(run);
  check_same_costs(recorded, options);
  const std::filesystem::path file = run / "timings.json";
  const Timings timings = timings_from_json(read_file(file), file.string());
  if (timings.passes == 0 || timings.steps == 0) throw DataError(file.string() + ": the recorded run took no step");
  runtime.profile_file = (run / "profile.json").string();

  RuntimeChoice same{
      .simulated = true, .platform = {.cores = timings.processors}, .profile_file = runtime.profile_file, .compute = false};
  const auto aside = std::make_shared<AsideCosts>();
  const double predicted = simulated_seconds(plan_like(recorded, same, timings, aside, true), timings.steps);

  if (runtime.platform == PlatformChoice{}) runtime.platform = same.platform;
  TrainOptions changed = options;
  if (changed.stages != recorded.stages && changed.cuts == recorded.cuts) changed.cuts = "auto";
  Plan plan = plan_like(changed, runtime, timings, aside, false);
  plan.what_if = WhatIf{.recorded_seconds = timings.seconds, .recorded_steps = timings.steps, .predicted_seconds = predicted};
  return plan;
}

}  // namespace rubato
