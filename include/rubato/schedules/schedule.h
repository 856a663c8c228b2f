#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rubato/context/runtime.h"
#include "rubato/core/option_values.h"
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

/// What a schedule is made from besides its replica.
struct ScheduleOptions {
  std::string name = "serial";
  Publish publish = Publish::block;
  std::vector<int> cuts;     ///< staged schedules: first block of stage 2, 3, ...; strictly increasing, in 1 .. blocks - 1
  std::int64_t classes = 0;  ///< of the data, >= 1; 0: it has none, or nobody has said
  OptionValues values = {};  ///< of the entry's own options
};

/// One row of `rubato list schedules`, and all that the rest of rubato knows of a schedule.
struct ScheduleEntry {
  std::string name;
  std::string summary;     ///< one line
  std::string paper = {};  ///< authors, year, number
  /// Roles that want a processor of their own.
  std::function<int(const ScheduleOptions&)> width = [](const ScheduleOptions&) { return 1; };
  /// With values for all of `options`. UsageError for what cannot work with this model.
  std::function<std::unique_ptr<Schedule>(Replica&, const ScheduleOptions&)> make;
  bool uses_cuts = false;       ///< needs the model cut into stages, and reads --stages and --cuts
  bool publishes = true;        ///< its backward passes update weights as --publish says
  bool fixed_protocol = false;  ///< same bits whatever the timing
  bool synchronous = false;     ///< the weights of a block never change between its forward and its backward pass
  bool whole_steps = false;     ///< takes one step of the whole model at a time, with a gradient of every block
  bool partial_steps = false;   ///< some steps have gradients of a part of the blocks only, or of none
  /// What a delayed backward pass may use; the first is the default.
  std::vector<StaleWeights> stale_weights = {StaleWeights::stashed, StaleWeights::live, StaleWeights::replayed};
  /// The end of the sentence that refuses what is not among these: why, and the way out.
  std::string why_no_other = {};
  /// Options of its own; for another schedule they are refused.
  std::vector<OptionSpec> options = {};
  CompleteOptions complete = {};
  CheckOptions check = {};
};

/// Adds a schedule to those that there are, before a run that is to know it. Returns true, so that a static object can be made of
/// the call. std::logic_error for a name that is taken; see `Registry`. From any thread.
bool register_schedule(ScheduleEntry entry);
/// Those that come along, then those that were registered.
std::vector<ScheduleEntry> schedules();
/// Valid to the end of the program. Throws UsageError with the nearest known name.
const ScheduleEntry& find_schedule(const std::string& name);

/// `options` with values for all of the entry's own options, and for these alone. UsageError for wrong types and ranges.
ScheduleOptions completed(ScheduleOptions options);
/// Of any name, with options completed.
std::unique_ptr<Schedule> make_schedule(Replica& replica, const ScheduleOptions& options);
/// dni with gradient models of the caller's own.
std::unique_ptr<Schedule> make_dni(Replica& replica, const ScheduleOptions& options, const MakeGradientModel& make_model);

/// UsageError where the schedule's backward passes cannot use `stale_weights`.
void check_stale_weights(const std::string& schedule, StaleWeights stale_weights);

/// The blocks of each stage of a model of `blocks` blocks, which `cuts` divide.
std::vector<BlockRange> stage_ranges(const std::vector<int>& cuts, int blocks);

/// UsageError where the numbers are out of range or cannot work with a model of `blocks` blocks.
void check(const ScheduleOptions& options, int blocks);

}  // namespace rubato
