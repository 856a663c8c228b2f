#pragma once

#include <functional>
#include <string>
#include <vector>

#include "rubato/context/context.h"

namespace rubato {

/// A plain function run by one thread or process.
struct Role {
  std::string name;  ///< unique in the run: "ddg-0", "forward-1"
  std::function<void(Context&)> run;
  int device = 0;  ///< simulator: index of the core that executes it (modulo their number)
  /// What dies and joins as a whole when a device does: the number of a replica. -1: its device must be there all the time.
  int unit = -1;
};

/// What a simulator calls when devices of a unit die or join, each with a context of its own.
struct UnitEvents {
  /// Every role of the unit has ended where it was, or the unit does not take part in this segment.
  std::function<void(Context&, int unit)> left;
  /// Before any role of the unit begins.
  std::function<void(Context&, int unit)> joins;
};

/// Executes roles. One segment at a time; channels keep what is in them between segments.
class Runtime {
 public:
  virtual ~Runtime() = default;
  /// `units`: simulator, where devices die and join.
  /// Runs all roles and returns when every one has returned. If one throws, the others are stopped at their next verb and the
  /// first exception is rethrown here.
  virtual void run(const std::vector<Role>& roles, const UnitEvents& units = {}) = 0;
  /// Seconds of this runtime's clock.
  virtual double now() const = 0;
  virtual const char* kind() const = 0;  ///< "threads", "simulator"
};

}  // namespace rubato
