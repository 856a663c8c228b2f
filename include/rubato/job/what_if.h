#pragma once

#include <filesystem>

#include "rubato/job/plan.h"

namespace rubato {

/// The configuration of a recorded run, without how it was watched. DataError when `run` was not recorded on threads.
TrainOptions recorded_options(const std::filesystem::path& run);

/// Plans `options`, which may differ from the recorded ones in everything but what a pass costs (model, data, batch size,
/// precision, ...): blocks cost what they cost in the run, every pass is as much shorter or longer as one that was recorded. The
/// recorded run itself is simulated first, in time only; how far that is off is the plan's `what_if`. UsageError otherwise.
/// Without a platform in `runtime` it is one host with as many cores as the run had processors.
Plan plan_what_if(const std::filesystem::path& run, const TrainOptions& options, RuntimeChoice runtime);

}  // namespace rubato
