#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "rubato/bootstrap/environment.h"
#include "rubato/job/processes.h"

namespace rubato::app {

/// Where this process stands, if a launcher, torchrun, Slurm or Open MPI has started several; nothing: it is alone.
std::optional<ProcessPlace> place_among_processes();

/// Reads the job's credentials and finds this machine's address. On loopback without a key file worker 0 makes one that only this
/// user can read. UsageError, DataError.
ProcessChoice choice_of(const ProcessPlace& place);

/// Where no launcher of ours is: the first worker keeps a coordinator running beside itself.
class CoordinatorBeside {
 public:
  /// Starts it, with this process's command line. Before any thread.
  CoordinatorBeside();
  /// `told`: its exit code, on another thread, once it has ended and had time to say so itself. At most once.
  void tell(std::function<void(ExitCode)> told);
  /// Who was to be told is no more.
  void tell_nobody() { teller_ = {}; }
  /// Until it has ended, at most as long as its farewell takes: another job may be started at its port then. It is not started
  /// again.
  void await_end();
  /// Waits for it to end.
  ~CoordinatorBeside();

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<ExitCode> ended_;  ///< guarded by mutex_
  bool over_ = false;              ///< guarded by mutex_
  std::jthread keeper_, teller_;
};

}  // namespace rubato::app
