#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rubato/config/options.h"
#include "rubato/data/batch_source.h"
#include "rubato/job/job.h"
#include "rubato/job/processes.h"
#include "rubato/model/model.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"
#include "rubato/runtimes/options.h"

namespace rubato {

/// What executes the run.
struct RuntimeChoice {
  bool simulated = false;
  PlatformChoice platform;   ///< simulator
  std::string profile_file;  ///< simulator: costs measured by `rubato profile -o`; empty: counted operations
  std::string block_costs;   ///< simulator: "FORWARD:BACKWARD" in seconds with units, one for all blocks or one for each
  bool compute = true;       ///< simulator; false: time only, nothing is computed
  /// Simulator: speed of a host where operations are counted, > 0; nothing: that of the platform's devices.
  std::optional<double> device_gflops = std::nullopt;
};

/// How well a simulation of a recorded run does, before something is changed.
struct WhatIf {
  double recorded_seconds = 0;
  std::int64_t recorded_steps = 0;  ///< of each replica
  double predicted_seconds = 0;     ///< of the same run in virtual time
  /// -0.05: the simulation is 5% too fast.
  double error() const { return predicted_seconds / recorded_seconds - 1; }
};

/// The one place that sees everything: options turned into objects, combinations checked.
struct Plan {
  TrainOptions options;  ///< resolved; `cuts` holds the numbers that "auto" stood for
  RuntimeChoice runtime;
  std::optional<ProcessChoice> processes;  ///< one of several processes: where this one stands
  Placement place;
  Model model;
  std::shared_ptr<const DataSplit> data;
  std::shared_ptr<const BatchMaker> batches;  ///< of the first replica
  StageOptions stage;
  StoreOptions store;
  ScheduleOptions schedule;
  CouplingOptions coupling;
  RuntimeOptions roles;
  SimulatedPlatform platform;     ///< simulator only
  std::vector<BlockCost> costs;   ///< simulator only
  WorkCosts work;                 ///< simulator only
  std::optional<WhatIf> what_if;  ///< simulator, where a recorded run is behind it
  std::int64_t total_steps = 0;   ///< of each replica
  /// Steps of each replica between tests, during which nobody waits for a test: an epoch, or as many epochs as make 20 steps.
  std::int64_t test_every = 0;

  /// Passes over the training data, of all replicas together, after `step` steps of each.
  double epochs_at(std::int64_t step) const;
  /// Whole ones of these.
  std::int64_t epochs_until(std::int64_t step) const;
  /// Steps of each replica in `epochs` passes of all together; need not be whole.
  double steps_in(double epochs) const;

  /// Whether the run takes time only and computes nothing.
  bool dry_run() const { return stage.dry_run != nullptr; }

  JobParts job() const;
};

/// Threads of this process or hosts in virtual time, as `plan.runtime` says; `roles` in place of `plan.roles`.
std::unique_ptr<Runtime> make_runtime(const Plan& plan, const RuntimeOptions& roles);

/// Options of a job of `world` workers as all its processes have them, resolved; `parts`: processes of one replica. UsageError
/// for what cannot work together. Reads nothing.
TrainOptions options_of_job(TrainOptions options, int world, int& parts);

/// Loads the data, builds the model, chooses cuts. Throws UsageError for what cannot work together, DataError for data that
/// cannot be read.
Plan make_plan(const TrainOptions& options, const RuntimeChoice& runtime = {},
               const std::optional<ProcessChoice>& processes = std::nullopt);

}  // namespace rubato
