#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rubato/context/runtime.h"
#include "rubato/replica/replica.h"
#include "rubato/schedules/gradient_model.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// How one replica turns batches into gradients. Lives for a whole run; between two calls of `roles` nothing of it executes.
class Schedule {
 public:
  virtual ~Schedule() = default;
  /// The roles of one segment. Each takes batches (or what others made of them) until the source ends, leaves in the schedule
  /// whatever is still in flight, and returns.
  virtual std::vector<Role> roles() = 0;
  /// What is in flight between segments; nothing by default.
  virtual void save(torch::serialize::OutputArchive&) const {}
  /// Restores what `save` wrote, so that the next segment continues bit for bit.
  virtual void load(torch::serialize::InputArchive&) {}
};

/// Choices of all schedules; each reads its own.
struct ScheduleOptions {
  std::string name = "serial";
  int workers = 2;           ///< hogwild, lpp: threads on one replica, >= 1
  int forward_threads = 1;   ///< pd-asgd, >= 1
  int backward_threads = 2;  ///< pd-asgd, >= 1
  int max_in_flight = 0;     ///< pd-asgd: passes that may exist at once; 0: forward + backward threads - 1, at least 2
  Publish publish = Publish::block;
  std::vector<int> cuts;           ///< staged schedules: first block of stage 2, 3, ...; strictly increasing, in 1 .. blocks - 1
  int micro_batches = 4;           ///< gpipe, 1f1b: parts of a batch, >= 1
  std::int64_t partial_after = 0;  ///< lpp: steps before the first partial gradient, >= 0
  double gradient_shrinking = 1;   ///< fdg: beta, what an error gradient is multiplied with at each cut; (0, 1]
  GradientModelOptions dni;
};

std::unique_ptr<Schedule> make_serial(Replica& replica, const ScheduleOptions& options);
std::unique_ptr<Schedule> make_hogwild(Replica& replica, const ScheduleOptions& options);
std::unique_ptr<Schedule> make_ddg(Replica& replica, const ScheduleOptions& options);
std::unique_ptr<Schedule> make_features_replay(Replica& replica, const ScheduleOptions& options);
std::unique_ptr<Schedule> make_fdg(Replica& replica, const ScheduleOptions& options);
std::unique_ptr<Schedule> make_dni(Replica& replica, const ScheduleOptions& options);
/// dni with gradient models of the caller's own.
std::unique_ptr<Schedule> make_dni(Replica& replica, const ScheduleOptions& options, const MakeGradientModel& make_model);
std::unique_ptr<Schedule> make_pd_asgd(Replica& replica, const ScheduleOptions& options);
/// Any schedule of pipeline_names(), whose operations `options.name` chooses.
std::unique_ptr<Schedule> make_pipeline(Replica& replica, const ScheduleOptions& options);
std::unique_ptr<Schedule> make_lpp(Replica& replica, const ScheduleOptions& options);

/// One row of `rubato list schedules`, and all that the rest of rubato knows of a schedule.
struct ScheduleEntry {
  std::string name;
  std::string summary;
  std::string paper;
  /// Roles that want a processor of their own.
  int (*width)(const ScheduleOptions&);
  std::unique_ptr<Schedule> (*make)(Replica&, const ScheduleOptions&);
  bool uses_cuts;              ///< needs the model cut into stages
  bool fixed_protocol;         ///< same bits whatever the timing
  bool synchronous = false;    ///< weights never change between forward and backward: `stale_weights` has nothing to choose
  bool partial_steps = false;  ///< some steps have gradients of a part of the blocks only
  /// Options that it reads besides those that all read, by name of the flag; for another schedule they are refused.
  std::vector<std::string> options = {};
};

const std::vector<ScheduleEntry>& schedules();
/// Throws UsageError with the nearest known name.
const ScheduleEntry& find_schedule(const std::string& name);

/// What `max_in_flight` 0 stands for: forward + backward threads - 1, at least 2. One pass less than there are threads keeps all
/// processors busy when they are as many as the passes, and gradients fresher.
int default_passes_in_flight(const ScheduleOptions& options);

/// UsageError where a schedule knows no other backward weights than those of the forward pass.
void check_stale_weights(const std::string& schedule, StaleWeights stale_weights);

/// The blocks of each stage of a model of `blocks` blocks, which `cuts` divide.
std::vector<BlockRange> stage_ranges(const std::vector<int>& cuts, int blocks);

/// UsageError where the numbers are out of range or cannot work with a model of `blocks` blocks.
void check(const ScheduleOptions& options, int blocks);

}  // namespace rubato
