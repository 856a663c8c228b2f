#pragma once

#include <simgrid/s4u.hpp>

#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "rubato/context/runtime.h"
#include "rubato/runtimes/platform.h"

namespace rubato {

/// The units of one segment: starts their roles, ends them when a device dies, begins them when one joins. A unit is there from
/// the latest arrival to the earliest death of the hosts that execute its roles. One that has not joined when all others have
/// ended does not take part in the segment.
class SimulatedUnits {
 public:
  struct Hooks {
    std::function<simgrid::s4u::ActorPtr(const Role&)> start;  ///< of one role
    std::function<int(const Role&)> host;                      ///< that executes it, as absences count them
    std::function<simgrid::s4u::Host*(const Role&)> place;     ///< the same
    std::function<double()> now;
    /// Gives `what` a context named `name`, on the calling actor.
    std::function<void(const std::string& name, const std::function<void(Context&)>& what)> call;
    std::function<void(const std::function<void()>&)> guarded;  ///< failures end the run
  };
  /// UsageError where an absence concerns a host that is none of a unit's.
  SimulatedUnits(const std::vector<Role>& roles, const std::vector<Absence>& absences, UnitEvents events, Hooks hooks);

  /// Starts everything that is there.
  void begin();
  /// A role has returned; on its actor.
  void ended(const Role& role);

 private:
  struct Unit {
    int number = -1;
    std::vector<const Role*> roles;
    std::vector<simgrid::s4u::ActorPtr> actors;
    simgrid::s4u::ActorPtr arrival;  // while it is awaited
    int running = 0;                 // roles that have not returned
    double joins = 0, dies = std::numeric_limits<double>::infinity();
  };
  void apply(const Absence& absence);
  void start(Unit& unit);
  void expect(Unit& unit);
  void watch(Unit& unit);
  void lose(Unit& unit);
  void leave(Unit& unit);
  void dismiss_the_awaited();
  simgrid::s4u::ActorPtr daemon(const std::string& name, const Unit& unit, double when, std::function<void()> what);

  UnitEvents events_;
  Hooks hooks_;
  std::vector<const Role*> others_;
  std::map<int, Unit> units_;
  int awaited_ = 0;  // units that have not joined yet
};

}  // namespace rubato
