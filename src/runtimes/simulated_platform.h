#pragma once

#include <simgrid/s4u.hpp>

#include <memory>
#include <vector>

#include "rubato/runtimes/options.h"

namespace rubato {

/// Of a host of speed 1; costs are given in seconds of such a host, so its value cancels.
inline constexpr double flops_per_second = 1e9;

/// SimGrid allows one engine at a time and none of its parts may be added once it has run, so every simulator has its own.
std::unique_ptr<simgrid::s4u::Engine> make_engine(const RuntimeOptions& options);

/// Makes the platform in `engine`. Hosts of a file keep its order. DataError, with line and reason, for a bad file.
std::vector<simgrid::s4u::Host*> make_hosts(simgrid::s4u::Engine& engine, const SimulatedPlatform& platform);

/// Time of a ring all-reduce of `bytes` among `hosts`: 2 (p - 1) rounds, each as long as its slowest message of bytes / p.
double ring_seconds(const std::vector<simgrid::s4u::Host*>& hosts, double bytes);

}  // namespace rubato
