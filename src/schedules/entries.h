#pragma once

#include "rubato/schedules/schedule.h"

/// The schedules that come along, in the order of `rubato list schedules`: one line each. `entry(NAME)` stands for the function
/// `schedule_detail::NAME`, which a file of the schedule's own defines.
#define RUBATO_SCHEDULES(entry)                                                                                    \
  entry(serial) entry(hogwild) entry(ddg) entry(features_replay) entry(fdg) entry(dni) entry(pd_asgd) entry(gpipe) \
      entry(one_f_one_b) entry(lpp)

// The registry may be made before `main`, so nothing here is a global object.

namespace rubato::schedule_detail {

#define RUBATO_DECLARE(name) ScheduleEntry name();
RUBATO_SCHEDULES(RUBATO_DECLARE)
#undef RUBATO_DECLARE

/// The width of staged schedules.
int one_role_per_stage(const ScheduleOptions& options);

/// Threads on one replica: hogwild, lpp.
OptionSpec workers_option();

}  // namespace rubato::schedule_detail
