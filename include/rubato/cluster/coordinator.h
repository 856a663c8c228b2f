#pragma once

#include <functional>
#include <memory>
#include <string>

#include "rubato/job/execution.h"
#include "rubato/job/plan.h"
#include "rubato/observe/meter.h"

namespace rubato {

/// The coordinator of a job of several processes, for the trainer of its run: `plan.processes` says that this process is it.
/// `note` is told, on any thread, what a person may want to know. References outlive it.
std::unique_ptr<Execution> make_coordinator(const Plan& plan, Job& job, StepMeter& meter,
                                            std::function<void(const std::string&)> note);

}  // namespace rubato
