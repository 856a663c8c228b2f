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
  int device = 0;  ///< simulator: index of the host that executes it (modulo their number)
};

/// Executes roles. One segment at a time; channels keep what is in them between segments.
class Runtime {
 public:
  virtual ~Runtime() = default;
  /// Runs all roles and returns when every one has returned. If one throws, the others are stopped at their next verb and the
  /// first exception is rethrown here.
  virtual void run(const std::vector<Role>& roles) = 0;
  /// Seconds of this runtime's clock.
  virtual double now() const = 0;
  virtual const char* kind() const = 0;  ///< "threads", "simulator"
};

}  // namespace rubato
