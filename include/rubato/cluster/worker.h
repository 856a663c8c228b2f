#pragma once

#include <functional>
#include <memory>
#include <string>

#include "rubato/job/execution.h"
#include "rubato/job/plan.h"

namespace rubato {

/// A worker of a job of several processes: one replica, or one stage of one, which does what the coordinator says.
class Worker {
 public:
  /// `plan.processes` says where it stands. `note` is told, on any thread, what a person may want to know.
  Worker(Plan plan, std::function<void(const std::string&)> note);
  ~Worker();
  /// Until the job is over. Returns how it ended. UsageError when the coordinator turns this process away, DataError when the
  /// coordinator does not answer, or goes away for good; the weights are then in the run folder.
  JobEnd run();
  /// Asks the coordinator to end the job; callable from a signal handler.
  void request_stop();
  bool stop_requested() const;
  /// The coordinator has ended with `code`, and it may be that it could not say so; on any thread, and from a
  /// signal handler.
  void coordinator_has_ended(ExitCode code);

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace rubato
