#pragma once

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "rubato/job/job.h"
#include "rubato/job/plan.h"
#include "rubato/model/process.h"

namespace rubato::bench {

using Clock = std::chrono::steady_clock;

class Ignore final : public StepObserver {
 public:
  void step(const StepReport&) override {}
};

inline TrainOptions base_options(const std::string& schedule, const std::string& precision = "fp32") {
  TrainOptions options;
  options.model = "resnet8";
  options.stages = 2;
  options.lr = 0.05;
  options.steps = 1'000'000;
  options.schedule = schedule;
  options.precision = precision;
  return options;
}

/// One job, kept between rounds.
class Contender {
 public:
  /// `order`: records what it does; not owned.
  explicit Contender(const TrainOptions& options, Order* order = nullptr)
      : plan_(make_plan(options)), job_(plan_.model, plan_.job(), ignore_) {
    plan_.roles.order = order;
    runtime_ = make_thread_runtime(plan_.roles);
  }

  /// Seconds per batch over `steps` more steps of every replica.
  double seconds_per_batch(std::int64_t steps) {
    job_.open(next_, next_ + steps);
    next_ += steps;
    const auto begin = Clock::now();
    runtime_->run(job_.roles());
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(steps * job_.replicas());
  }
  const Plan& plan() const { return plan_; }

 private:
  Plan plan_;
  Ignore ignore_;
  Job job_;
  std::unique_ptr<Runtime> runtime_;
  std::int64_t next_ = 0;
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

inline void row(const std::string& name, double value, const std::string& unit, const std::string& wanted, bool held) {
  fmt::print("| {} | {:.3f}{} | {} | {} |\n", name, value, unit, wanted, held ? "yes" : "NO");
}

/// Peak resident bytes of a process that runs `steps` steps; the first of the pair is after a tenth of them.
std::pair<double, double> peak_bytes(const TrainOptions& options, std::int64_t steps);

}  // namespace rubato::bench
