#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "rubato/context/runtime.h"
#include "rubato/core/error.h"
#include "rubato/job/job.h"

namespace rubato {

/// How a job has ended.
struct JobEnd {
  ExitCode code = ExitCode::ok;  ///< of every process of the job
  std::string status;            ///< as in summary.json
  std::string why;               ///< one sentence; empty where nothing went wrong
};

/// What executes a job, as the trainer sees it: the roles of this process, or other processes.
class Execution {
 public:
  virtual ~Execution() = default;
  /// Steps [begin, end) of every replica. Returns the step at which all of them are: less than `end` after `stop`, more where
  /// replicas do not stop for a test.
  virtual std::int64_t run(std::int64_t begin, std::int64_t end) = 0;
  /// Whether nobody trains between two calls of `run`, while the trainer tests and writes checkpoints.
  virtual bool pauses_between_segments() const { return true; }
  /// Ends `run` soon; callable from a signal handler.
  virtual void stop() = 0;
  /// Whether a process that takes part has asked for the end of the job; `run` then ends as after `stop`.
  virtual bool stop_was_asked() const { return false; }
  /// Seconds of the clock that roles see.
  virtual double now() const = 0;
  virtual const char* kind() const = 0;  ///< "threads", "simulator", "processes"
  /// Of all replicas together.
  virtual StalenessCount staleness(int block) const = 0;
  /// As Job::digest.
  virtual std::string digest() const = 0;
  /// The run is over: tells all that take part.
  virtual void finish(const JobEnd&) {}
  /// The run was refused: tells all that take part. The run folder is not touched.
  virtual void refuse(const JobEnd&) {}
  /// How far the run is besides steps; shown by `rubato status`.
  virtual void tell(double /*train_loss*/, std::optional<double> /*test_accuracy*/) {}
};

/// All roles of `job` on `runtime`, in this process. References outlive it.
std::unique_ptr<Execution> make_local_execution(Job& job, std::unique_ptr<Runtime> runtime);

}  // namespace rubato
