#pragma once

#include <chrono>
#include <csignal>

namespace rubato::app {

/// From now on SIGINT and SIGTERM end this process with 130, except those that it was started to ignore. Callable before any
/// library is made ready.
void end_at_signals();

/// Who follows the signals. Both are called in a signal handler, on any thread.
class SignalFollower {
 public:
  virtual ~SignalFollower() = default;
  /// End soon, with a checkpoint. Once.
  virtual void stop() = 0;
  /// The launcher says: the job's coordinator has ended with `code`.
  virtual void job_has_ended(int code) = 0;
};

/// SIGINT and SIGTERM while it lives: the first is a wish, which a follower fulfils, now or as soon as there is one; a later one
/// ends the process at once, with 130. What comes within `one_wish` (more than 0) of the first belongs to it: a terminal, a batch
/// system and the launcher may all pass the same wish on. One at a time.
class StopSignals {
 public:
  explicit StopSignals(std::chrono::milliseconds one_wish);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// `follower` outlives this, or `follow(nullptr)`. Without one a first signal is remembered, and a told end of the job is the
  /// end of the process.
  void follow(SignalFollower* follower);

 private:
  struct sigaction interrupt_ {
  }, terminate_{};
};

}  // namespace rubato::app
