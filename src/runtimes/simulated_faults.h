#pragma once

#include <simgrid/s4u.hpp>

#include <cstdint>
#include <map>
#include <vector>

#include "rubato/context/event.h"
#include "rubato/core/random.h"
#include "rubato/runtimes/platform.h"

namespace rubato {

/// What goes wrong on a simulated platform, from streams of its own: (seed, host).
class SimulatedFaults {
 public:
  SimulatedFaults(const SimulatedPlatform& platform, const std::vector<simgrid::s4u::Host*>& hosts, std::uint64_t seed);

  /// Seconds by which `host` is late with the computation `what`.
  double before(const simgrid::s4u::Host* host, Computation what);
  /// Seconds until a message from `from` to `to` that was lost is sent again; 0: it gets through.
  double time_out(const simgrid::s4u::Host* from, const simgrid::s4u::Host* to);

 private:
  struct Late {
    Straggler straggler;
    RandomStream random;
    int burst_left = 0;
    double next();
  };
  double loss_;
  std::map<const simgrid::s4u::Host*, std::vector<Late>> late_;
  std::map<const simgrid::s4u::Host*, RandomStream> losses_;
};

}  // namespace rubato
