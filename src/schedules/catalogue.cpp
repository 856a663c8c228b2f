#include <algorithm>
#include <string>

#include "rubato/core/error.h"
#include "rubato/core/registry.h"
#include "rubato/schedules/schedule.h"
#include "schedules/entries.h"

namespace rubato {

namespace schedule_detail {

int one_role_per_stage(const ScheduleOptions& options) {
  return static_cast<int>(options.cuts.size()) + 1;
}

OptionSpec workers_option() {
  return {.name = "workers", .usual = 2, .help = "hogwild, lpp: threads", .low = 1, .high = 1 << 20};
}

}  // namespace schedule_detail

namespace {

Registry<ScheduleEntry>& registry() {
#define RUBATO_CALL(name) schedule_detail::name(),
  static Registry<ScheduleEntry> all("schedule", {RUBATO_SCHEDULES(RUBATO_CALL)});
#undef RUBATO_CALL
  return all;
}

}  // namespace

bool register_schedule(ScheduleEntry entry) {
  return registry().add(std::move(entry));
}

std::vector<ScheduleEntry> schedules() {
  return registry().all();
}

const ScheduleEntry& find_schedule(const std::string& name) {
  return registry().find(name);
}

ScheduleOptions completed(ScheduleOptions options) {
  options.values = completed_values(find_schedule(options.name), options.values, {});
  return options;
}

std::unique_ptr<Schedule> make_schedule(Replica& replica, const ScheduleOptions& options) {
  return find_schedule(options.name).make(replica, completed(options));
}

void check_stale_weights(const std::string& schedule, StaleWeights stale_weights) {
  const ScheduleEntry& entry = find_schedule(schedule);
  if (std::ranges::find(entry.stale_weights, stale_weights) != entry.stale_weights.end()) return;
  std::vector<std::string> known;
  for (const StaleWeights one : entry.stale_weights) known.push_back(name_of(one));
  throw UsageError(std::string("--stale-weights ") + name_of(stale_weights) + " with --schedule " + schedule + ": " +
                   (entry.why_no_other.empty() ? "use " + join(known, " or ") : entry.why_no_other));
}

void check(const ScheduleOptions& options, int blocks) {
  checked_values(find_schedule(options.name), options.values, {});
  stage_ranges(options.cuts, blocks);
}

}  // namespace rubato
