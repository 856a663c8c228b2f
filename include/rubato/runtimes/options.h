#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rubato/context/event.h"
#include "rubato/context/order.h"
#include "rubato/context/runtime.h"
#include "rubato/runtimes/platform.h"

namespace rubato {

/// An artificial delay before every `compute` of one role: uniform in [low_ms, high_ms], from the role's own random stream.
struct InjectedDelay {
  std::string role;
  double low_ms = 0, high_ms = 0;
};

struct RuntimeOptions {
  std::uint64_t seed = 1;
  std::vector<InjectedDelay> delays;
  EventSink* events = nullptr;  ///< receives every event of every role; not owned; null: none
  Order* order = nullptr;       ///< records or enforces the order of what roles do; not owned; null: none
  /// Threads: how many roles compute at the same time, the others take turns; 0: all.
  int processors = 0;
  /// Threads: called at the start of each role's thread (intra-op threads are set here).
  std::function<void()> on_thread_start;
  /// Simulator: seconds that `what` takes in place of those that `role` gives to `compute`. Called in the order of virtual time.
  std::function<double(const std::string& role, const Computation& what, double seconds)> cost;
  /// Simulator: roles share one thread, each on a stack of `stack_kib`, instead of having a thread each: cheaper switches, and
  /// what libtorch and OpenBLAS keep per thread is there once. Not where an order makes roles wait: they may then do so under a
  /// guard of libtorch's, which would leak into another. The first simulator of a process decides for all.
  bool one_thread = false;
  int stack_kib = 512;
};

/// "ROLE:MS" or "ROLE:LOW-HIGH"; UsageError otherwise.
InjectedDelay parse_delay(const std::string& text);

/// Roles on threads of this process.
std::unique_ptr<Runtime> make_thread_runtime(const RuntimeOptions& options);

/// Roles in virtual time on SimGrid, one at a time, in the order of virtual time. Only one may exist in a process at a time.
/// Order at equal times is repeatable for the first simulator of a process: SimGrid's clock runs on, and times that are not
/// counted from zero round differently.
/// UsageError when built without SimGrid.
std::unique_ptr<Runtime> make_simulator(const SimulatedPlatform& platform, const RuntimeOptions& options);

}  // namespace rubato
