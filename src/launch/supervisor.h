#pragma once

#include <filesystem>

#include "launch/signals.h"
#include "launch/supervised.h"

namespace rubato {

struct SupervisorOptions {
  std::filesystem::path run;  ///< folder of job.json and keys
  int restarts = 3;
  bool quiet = false;
  Patience patience;
};

/// Watches the processes of one job until all have ended.
class Supervisor {
 public:
  /// `signals` outlives it; signals that have come already count.
  Supervisor(JobRecord job, SupervisorOptions options, const Signals& signals);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// Starts all of them. DataError when one cannot be started; none is left then.
  void start();
  /// Those that still run are watched from now on, those that a signal ended are started again.
  void attach();
  /// Until the last has ended. Returns the exit code of the launcher.
  int run();
  /// Whether the coordinator has ended before it wrote anything: it has refused the job, or a signal came first.
  bool was_refused() const { return refused_; }
  /// Whether something that the processes have said could not be printed.
  bool output_was_lost() const;

 private:
  struct Watch;
  Command command_of(std::size_t index) const;
  void attach_to(Supervised& process);
  void wait();
  std::vector<Watch> watched();
  int milliseconds_to_wait() const;
  void handle(const Watch& watch);
  void act_on_time();
  void start_again(std::size_t index);
  void on_end(Supervised& process, Ending ending);
  void on_signal();
  void end_the_rest();
  void pass_on_wish();
  void gone_for_good(Supervised& process, const Ending& ending);
  void coordinator_ended(const Ending& ending);
  void stop_restarts();
  void tell_all(int number);
  bool someone_expected() const;
  void save();
  void say(const std::string& sentence) const;

  JobRecord job_;
  SupervisorOptions options_;
  std::vector<std::string> environment_;
  const Signals& signals_;
  std::vector<Supervised> processes_;  ///< of job_.processes, the coordinator first
  int signals_seen_ = 0;
  LaunchClock::time_point last_signal_{};
  bool save_failed_ = false;
  bool refused_ = false;
  std::optional<int> result_;  ///< set when the coordinator is gone for good
  std::optional<LaunchClock::time_point> terminate_at_, kill_at_;
};

}  // namespace rubato
