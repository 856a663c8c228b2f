#include <algorithm>

#include "rubato/core/error.h"
#include "rubato/schedules/schedule.h"

namespace rubato {
namespace {

int one_role_per_stage(const ScheduleOptions& options) {
  return static_cast<int>(options.cuts.size()) + 1;
}

void check_staged(const ScheduleOptions& options) {
  if (!(options.gradient_shrinking > 0 && options.gradient_shrinking <= 1)) {
    throw UsageError("--gradient-shrinking " + std::to_string(options.gradient_shrinking) +
                     " must be above 0 and at most 1; at 0 only the last stage would learn");
  }
  if (options.dni.layers < 0) throw UsageError("--dni-layers " + std::to_string(options.dni.layers) + " must not be negative");
  if (!(options.dni.learning_rate >= 0)) throw UsageError("--dni-lr must not be negative");
  if (options.dni.labels && options.dni.classes < 1) throw UsageError("--dni-labels needs data with classes");
}

}  // namespace

const std::vector<ScheduleEntry>& schedules() {
  static const std::vector<ScheduleEntry> table = {
      {.name = "serial",
       .summary = "backpropagation, one batch after the other; the reference for all others",
       .paper = "",
       .width = [](const ScheduleOptions&) { return 1; },
       .make = make_serial,
       .uses_cuts = false,
       .fixed_protocol = true,
       .options = {"publish"}},
      {.name = "hogwild",
       .summary = "several workers on one replica, each applies its gradients without waiting (--workers)",
       .paper = "Niu et al. 2011",
       .width = [](const ScheduleOptions& o) { return o.workers; },
       .make = make_hogwild,
       .uses_cuts = false,
       .fixed_protocol = false,
       .options = {"publish", "workers"}},
      {.name = "ddg",
       .summary = "the model cut into K stages that run in parallel on delayed gradients (--stages, --cuts)",
       .paper = "Huo et al. 2018, arXiv 1804.10574",
       .width = one_role_per_stage,
       .make = make_ddg,
       .uses_cuts = true,
       .fixed_protocol = true,
       .options = {"publish", "stages", "cuts"}},
      {.name = "features-replay",
       .summary =
           "ddg whose stages keep inputs only and compute the forward pass again with the newest weights (--stages, --cuts)",
       .paper = "Huo et al. 2018, arXiv 1807.04511",
       .width = one_role_per_stage,
       .make = make_features_replay,
       .uses_cuts = true,
       .fixed_protocol = true,
       .options = {"publish", "stages", "cuts"}},
      {.name = "fdg",
       .summary =
           "all stages work at once on different batches, forward too; gradients twice as late as ddg's (--stages, --cuts, "
           "--gradient-shrinking)",
       .paper = "Zhuang et al. 2021, arXiv 1906.09108",
       .width = one_role_per_stage,
       .make = make_fdg,
       .uses_cuts = true,
       .fixed_protocol = true,
       .options = {"publish", "stages", "cuts", "gradient-shrinking"}},
      {.name = "dni",
       .summary =
           "each stage updates at once with a gradient that a small model predicts at its cut (--stages, --cuts, --dni-labels)",
       .paper = "Jaderberg et al. 2017, arXiv 1608.05343",
       .width = one_role_per_stage,
       .make = [](Replica& replica, const ScheduleOptions& options) { return make_dni(replica, options); },
       .uses_cuts = true,
       .fixed_protocol = true,
       .options = {"publish", "stages", "cuts", "dni-labels", "dni-layers", "dni-width", "dni-lr"}},
      {.name = "pd-asgd",
       .summary = "separate forward and backward threads, layer-wise updates (--forward-threads, --backward-threads)",
       .paper = "Fokam et al. 2024, arXiv 2410.05985",
       .width = [](const ScheduleOptions& o) { return o.forward_threads + o.backward_threads; },
       .make = make_pd_asgd,
       .uses_cuts = false,
       .fixed_protocol = false,
       .options = {"publish", "forward-threads", "backward-threads", "max-in-flight"}},
      {.name = "gpipe",
       .summary = "synchronous pipeline of K stages: micro-batches forward, then back (--stages, --cuts, --micro-batches)",
       .paper = "Huang et al. 2019, arXiv 1811.06965",
       .width = one_role_per_stage,
       .make = make_pipeline,
       .uses_cuts = true,
       .fixed_protocol = true,
       .synchronous = true,
       .options = {"stages", "cuts", "micro-batches"}},
      {.name = "1f1b",
       .summary =
           "as gpipe; forwards and backwards alternate, so that fewer activations live (--stages, --cuts, --micro-batches)",
       .paper = "Narayanan et al. 2021, arXiv 2006.09503",
       .width = one_role_per_stage,
       .make = make_pipeline,
       .uses_cuts = true,
       .fixed_protocol = true,
       .synchronous = true,
       .options = {"stages", "cuts", "micro-batches"}},
      {.name = "lpp",
       .summary =
           "hogwild whose workers alternate whole gradients with those of a part of their own (--workers, --partial-after)",
       .paper = "Chatterjee, Kungurtsev, Alistarh 2022, arXiv 2203.06638",
       .width = [](const ScheduleOptions& o) { return o.workers; },
       .make = make_lpp,
       .uses_cuts = false,
       .fixed_protocol = false,
       .partial_steps = true,
       .options = {"publish", "workers", "partial-after"}},
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

void check_stale_weights(const std::string& schedule, StaleWeights stale_weights) {
  if (find_schedule(schedule).synchronous && stale_weights != StaleWeights::stashed) {
    throw UsageError("--schedule " + schedule +
                     " changes no weights between a forward pass and its backward pass: leave --stale-weights at stashed");
  }
}

void check(const ScheduleOptions& options, int blocks) {
  const auto at_least_one = [](const char* flag, int value) {
    if (value < 1) throw UsageError(std::string(flag) + " " + std::to_string(value) + " must be at least 1");
  };
  find_schedule(options.name);
  at_least_one("--workers", options.workers);
  at_least_one("--forward-threads", options.forward_threads);
  at_least_one("--backward-threads", options.backward_threads);
  at_least_one("--micro-batches", options.micro_batches);
  if (options.partial_after < 0) {
    throw UsageError("--partial-after " + std::to_string(options.partial_after) + " must be at least 0");
  }
  if (options.max_in_flight < 0) {
    throw UsageError("--max-in-flight " + std::to_string(options.max_in_flight) +
                     " must be at least 1, or 0 for forward + backward threads - 1");
  }
  at_least_one("--dni-width", options.dni.width);
  check_staged(options);
  stage_ranges(options.cuts, blocks);
}

}  // namespace rubato
