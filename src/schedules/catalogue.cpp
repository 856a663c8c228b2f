#include <algorithm>

#include "rubato/core/error.h"
#include "rubato/schedules/schedule.h"

namespace rubato {

const std::vector<ScheduleEntry>& schedules() {
  static const std::vector<ScheduleEntry> table = {
      {.name = "serial",
       .summary = "backpropagation, one batch after the other; the reference for all others",
       .paper = "",
       .width = [](const ScheduleOptions&) { return 1; },
       .make = make_serial,
       .uses_cuts = false,
       .fixed_protocol = true},
      {.name = "hogwild",
       .summary = "several workers on one replica, each applies its gradients without waiting (--workers)",
       .paper = "Niu et al. 2011",
       .width = [](const ScheduleOptions& o) { return o.workers; },
       .make = make_hogwild,
       .uses_cuts = false,
       .fixed_protocol = false},
      {.name = "ddg",
       .summary = "the model cut into K stages that run in parallel on delayed gradients (--stages, --cuts)",
       .paper = "Huo et al. 2018, arXiv 1804.10574",
       .width = [](const ScheduleOptions& o) { return static_cast<int>(o.cuts.size()) + 1; },
       .make = make_ddg,
       .uses_cuts = true,
       .fixed_protocol = true},
      {.name = "pd-asgd",
       .summary = "separate forward and backward threads, layer-wise updates (--forward-threads, --backward-threads)",
       .paper = "Fokam et al. 2024, arXiv 2410.05985",
       .width = [](const ScheduleOptions& o) { return o.forward_threads + o.backward_threads; },
       .make = make_pd_asgd,
       .uses_cuts = false,
       .fixed_protocol = false},
  };
  return table;
}

const ScheduleEntry& find_schedule(const std::string& name) {
  std::vector<std::string> names;
  for (const ScheduleEntry& entry : schedules()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  throw unknown_name("schedule", name, names);
}

int default_passes_in_flight(const ScheduleOptions& options) {
  return std::max(2, options.forward_threads + options.backward_threads - 1);
}

void check(const ScheduleOptions& options, int blocks) {
  const auto at_least_one = [](const char* flag, int value) {
    if (value < 1) throw UsageError(std::string(flag) + " " + std::to_string(value) + " must be at least 1");
  };
  find_schedule(options.name);
  at_least_one("--workers", options.workers);
  at_least_one("--forward-threads", options.forward_threads);
  at_least_one("--backward-threads", options.backward_threads);
  if (options.max_in_flight < 0) {
    throw UsageError("--max-in-flight " + std::to_string(options.max_in_flight) +
                     " must be at least 1, or 0 for forward + backward threads - 1");
  }
  int before = 0;
  for (const int cut : options.cuts) {
    if (cut <= before || cut >= blocks) {
      throw UsageError("--cuts must increase strictly within 1 .. " + std::to_string(blocks - 1) + " for this model of " +
                       std::to_string(blocks) + " blocks; " + std::to_string(cut) + " does not");
    }
    before = cut;
  }
}

}  // namespace rubato
