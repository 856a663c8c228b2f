#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rubato/data/batch_source.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"
#include "rubato/runtimes/options.h"
#include "rubato/train/job.h"
#include "rubato/train/options.h"

namespace rubato {

/// What executes the run.
struct RuntimeChoice {
  bool simulated = false;
  PlatformChoice platform;    ///< simulator
  std::string profile_file;   ///< simulator: costs measured by `rubato profile -o`; empty: counted operations
  double device_gflops = 50;  ///< simulator: speed of a host where operations are counted, > 0
};

/// The one place that sees everything: options turned into objects, combinations checked.
struct Plan {
  TrainOptions options;  ///< resolved; `cuts` holds the numbers that "auto" stood for
  RuntimeChoice runtime;
  Model model;
  std::shared_ptr<const DataSplit> data;
  std::shared_ptr<const BatchMaker> batches;  ///< of the first replica
  StageOptions stage;
  StoreOptions store;
  ScheduleOptions schedule;
  CouplingOptions coupling;
  RuntimeOptions roles;
  SimulatedPlatform platform;                         ///< simulator only
  std::vector<BlockCost> costs;                       ///< simulator only
  std::int64_t steps_per_epoch = 0, total_steps = 0;  ///< of each replica

  JobParts job() const;
};

/// Threads of this process or hosts in virtual time, as `plan.runtime` says; `roles` in place of `plan.roles`.
std::unique_ptr<Runtime> make_runtime(const Plan& plan, const RuntimeOptions& roles);

/// Loads the data, builds the model, chooses cuts. Throws UsageError for what cannot work together, DataError for data that
/// cannot be read.
Plan make_plan(const TrainOptions& options, const RuntimeChoice& runtime = {});

}  // namespace rubato
