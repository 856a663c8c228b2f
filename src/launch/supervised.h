#pragma once

#include <chrono>
#include <optional>

#include "launch/child.h"
#include "launch/job_file.h"
#include "launch/output.h"

namespace rubato {

using LaunchClock = std::chrono::steady_clock;

/// How long the launcher waits for what.
struct Patience {
  using Time = std::chrono::milliseconds;
  Time shortest_pause{100}, longest_pause{2000};  ///< before a process is started again
  Time short_life{1000};                          ///< one that lived less pauses twice as long each time
  Time one_wish{2500};  ///< signals to the launcher that come within this time count as one; longer than in its processes
  Time after_coordinator{1000};  ///< for workers to end by themselves when the coordinator has ended; then they are told its code
  Time after_code_told{5000};    ///< for them to end then; then SIGKILL, which ends stopped processes too
  Time after_lost_coordinator{30000};  ///< for workers to end by themselves when a signal has ended the coordinator, then SIGTERM
  Time after_all_told{30000};          ///< for all to end after SIGTERM, then SIGKILL
};

/// One process of the job with its restarts. `coordinator_plain`: the coordinator's lines get no prefix and the workers' output
/// is dropped.
class Supervised {
 public:
  Supervised(ProcessRecord& record, int restarts, bool coordinator_plain, const Patience& patience);

  ProcessRecord& record() { return *record_; }
  bool coordinator() const { return record_->coordinator(); }
  bool runs() const { return child_.has_value(); }
  /// Not gone for good: runs, or will again.
  bool expected() const { return runs() || start_at_.has_value(); }
  std::optional<LaunchClock::time_point> start_at() const { return start_at_; }
  int restarts_left() const { return restarts_left_; }
  const Child& child() const { return *child_; }
  Output& output() { return output_; }
  Output& errors() { return errors_; }
  bool output_was_lost() const { return output_.lost() || errors_.lost(); }

  void start(const Command& command);
  void adopt(Child child);
  /// When the child has ended: takes its last words and says how it ended.
  Ending collect();
  /// Whether an end like this is one after which a process is started again, restarts or not.
  bool asks_for_restart(const Ending& ending) const;
  /// Will be started again after a pause.
  void schedule(const Ending& ending);
  /// Will not: `ending` goes into the record.
  void give_up(const Ending& ending);
  /// Of a process that waits to be started again.
  void cancel() { give_up(last_); }
  void signal(int number) const;
  /// SIGTERM, with the exit code of the job where a signal can carry it: not to another host.
  void tell_job_code(int code) const;

 private:
  ProcessRecord* record_;
  Patience patience_;
  Output output_, errors_;
  int restarts_left_;
  std::optional<Child> child_;
  std::optional<LaunchClock::time_point> start_at_;
  LaunchClock::time_point started_ = LaunchClock::now();
  Patience::Time pause_;
  Ending last_;
};

}  // namespace rubato
