#pragma once

#include "rubato/job/plan.h"
#include "rubato/transport/transport.h"

namespace rubato {

/// How process `choice` of `plan` talks to the others: limits fit the model, endpoints and keys are the job's.
TransportOptions transport_options(const Plan& plan, const ProcessChoice& choice);

/// Of this machine.
std::string host_name();

}  // namespace rubato
