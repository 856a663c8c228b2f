#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "cluster/worker_figures.h"
#include "rubato/context/packed.h"
#include "rubato/membership/coordinator_machine.h"
#include "rubato/monitor/status.h"

namespace rubato {

/// What a coordinator knows of a worker besides its membership.
struct WorkerRecord {
  using Clock = std::chrono::steady_clock;
  WorkerFigures figures;
  Packed content;                       ///< its state or weights, as they came last
  std::optional<std::int64_t> counted;  ///< steps of its process
  std::int64_t samples_at = 0;          ///< for the rate
  double rate = 0;                      ///< samples per second
  Clock::time_point rate_at = Clock::now(), began = Clock::now();

  /// From the newest figures, every two seconds.
  void measure_rate();
};

/// As `rubato status` shows it, but for its rank and stage. `now`: of the clock of `member`.
WorkerStatus status_of(const membership::Member& member, const WorkerRecord& record, double now);

}  // namespace rubato
