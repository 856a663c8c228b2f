#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "cluster/orders.h"
#include "cluster/worker_report.h"

namespace rubato {

/// What the coordinator knows of one worker.
struct WorkerEntry {
  using Clock = std::chrono::steady_clock;
  enum State {
    missing,   ///< has not come yet
    idle,      ///< waits for orders
    running,   ///< a segment
    finished,  ///< its segment, or the run
    dead,
  } state = missing;
  bool silent = false;
  bool synced = false;   ///< has the state that the coordinator keeps of it
  bool held = false;     ///< has said where it is, to stop there
  bool started = false;  ///< has once begun in this run
  bool left = false;     ///< knows that the job is over
  std::int64_t segment = 0, term = 0, step = 0;
  Greeting greeting;
  WorkerBeat beat;
  FinishedReport finish;
  std::optional<Packed> weights;
  Clock::time_point heard = Clock::now(), died, began = Clock::now(), weights_at;
  std::int64_t samples_at = 0;  ///< for the rate
  double rate = 0;
  Clock::time_point rate_at = Clock::now();

  bool present() const { return state == idle || state == running || state == finished; }
};

inline double seconds_since(WorkerEntry::Clock::time_point begin) {
  return std::chrono::duration<double>(WorkerEntry::Clock::now() - begin).count();
}

using WorkerTable = std::vector<WorkerEntry>;

/// Whether all of `table` satisfy `condition`.
template <class Condition>
bool all(const WorkerTable& table, Condition condition) {
  return std::all_of(table.begin(), table.end(), condition);
}

}  // namespace rubato
