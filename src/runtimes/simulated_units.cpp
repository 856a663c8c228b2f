#include "runtimes/simulated_units.h"

#include <algorithm>

#include "rubato/core/error.h"

namespace rubato {

namespace s4u = simgrid::s4u;

SimulatedUnits::SimulatedUnits(const std::vector<Role>& roles, const std::vector<Absence>& absences, UnitEvents events,
                               Hooks hooks)
    : events_(std::move(events)), hooks_(std::move(hooks)) {
  for (const Role& role : roles) {
    if (role.unit < 0) {
      others_.push_back(&role);
      continue;
    }
    units_[role.unit].number = role.unit;
    units_[role.unit].roles.push_back(&role);
  }
  for (const Absence& absence : absences) apply(absence);
}

void SimulatedUnits::apply(const Absence& absence) {
  const std::string flag = std::string(absence.dies ? "--dies " : "--joins ") + std::to_string(absence.host);
  for (const Role* role : others_) {
    if (hooks_.host(*role) != absence.host) continue;
    throw UsageError(flag + ": that host runs '" + role->name + "', without which nobody can go on; name another host");
  }
  bool found = false;
  for (auto& [number, unit] : units_) {
    const bool concerned = std::ranges::any_of(unit.roles, [&](const Role* role) { return hooks_.host(*role) == absence.host; });
    if (!concerned) continue;
    found = true;
    (absence.dies ? unit.dies : unit.joins) =
        absence.dies ? std::min(unit.dies, absence.seconds) : std::max(unit.joins, absence.seconds);
  }
  if (!found) throw UsageError(flag + ": no role runs on that host");
}

void SimulatedUnits::begin() {
  for (const Role* role : others_) hooks_.start(*role);
  for (auto& [number, unit] : units_) {
    if (unit.dies <= hooks_.now()) {
      daemon("absent", unit, 0, [this, &unit] { leave(unit); });
    } else if (unit.joins > hooks_.now()) {
      expect(unit);
    } else {
      start(unit);
    }
  }
}

void SimulatedUnits::start(Unit& unit) {
  unit.running = static_cast<int>(unit.roles.size());
  for (const Role* role : unit.roles) unit.actors.push_back(hooks_.start(*role));
  if (unit.dies < std::numeric_limits<double>::infinity()) {
    daemon("death", unit, unit.dies, [this, &unit] {
      if (unit.running > 0) lose(unit);
    });
  }
}

void SimulatedUnits::expect(Unit& unit) {
  ++awaited_;
  unit.arrival = daemon("arrival", unit, unit.joins, [this, &unit] {
    unit.arrival = nullptr;
    --awaited_;
    unit.running = static_cast<int>(unit.roles.size());
    if (events_.joins) {
      hooks_.call("joins-" + std::to_string(unit.number), [&](Context& me) { events_.joins(me, unit.number); });
    }
    start(unit);
  });
}

void SimulatedUnits::lose(Unit& unit) {
  for (const s4u::ActorPtr& actor : unit.actors) actor->kill();  // those that have returned do not mind
  unit.running = 0;
  leave(unit);
  dismiss_the_awaited();
}

void SimulatedUnits::leave(Unit& unit) {
  if (!events_.left) return;
  hooks_.call("leaves-" + std::to_string(unit.number), [&](Context& me) { events_.left(me, unit.number); });
}

void SimulatedUnits::ended(const Role& role) {
  if (role.unit < 0) return;
  --units_.at(role.unit).running;
  dismiss_the_awaited();
}

/// Nobody is at work any more: whoever has not arrived does so in a later segment, if there is one.
void SimulatedUnits::dismiss_the_awaited() {
  if (awaited_ == 0) return;
  for (const auto& [number, unit] : units_) {
    if (unit.running > 0) return;
  }
  for (auto& [number, unit] : units_) {
    if (!unit.arrival) continue;
    std::exchange(unit.arrival, nullptr)->kill();
    --awaited_;
    leave(unit);
  }
}

/// On the unit's first host, so that what it says and hears travels from and to there. Ends with the last role, if its time has
/// not come before.
s4u::ActorPtr SimulatedUnits::daemon(const std::string& name, const Unit& unit, double when, std::function<void()> what) {
  auto actor = s4u::Actor::create(name, hooks_.place(*unit.roles.front()), [this, when, what = std::move(what)] {
    if (when > hooks_.now()) s4u::this_actor::sleep_for(when - hooks_.now());
    hooks_.guarded(what);
  });
  actor->daemonize();
  return actor;
}

}  // namespace rubato
