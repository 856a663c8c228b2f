#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "cluster/meeting.h"
#include "cluster/process_link.h"
#include "cluster/worker_table.h"
#include "rubato/job/execution.h"
#include "rubato/job/plan.h"
#include "rubato/monitor/status.h"

namespace rubato {

class MetricsPage;

/// The home of a job of several processes: it holds the centre and the run folder, tells workers what to do and knows how they
/// are.
///
/// Two kinds of jobs. Where membership is free (asynchronous couplings of whole replicas) every worker runs once, from start to
/// end; a segment of the trainer ends when the slowest worker alive has passed its end, and nobody waits for it. Elsewhere
/// workers run segment by segment; between segments the home keeps the state of every replica, so that all can go back to it when
/// one dies.
///
/// Thread rules: the trainer's thread calls `run`, the post's thread everything of PostListener; `mutex_` guards the table and
/// what stands beside it, and is not held while the post, the runtime or the job is called from the trainer's thread. The post's
/// thread may call the post and the runtime under it: neither blocks.
class Home : public Execution, public ProcessLink {
 public:
  Home(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note);
  ~Home() override;

  void stop() override { stop_wanted_ = true; }
  double now() const override { return runtime_->now(); }
  const char* kind() const override { return "processes"; }
  void finish(const JobEnd& end) override;
  void refuse(const JobEnd& end) override;
  void tell(double train_loss, double test_accuracy) override;

 protected:
  // Neighbours
  void listens(const std::string& channel) override;
  std::shared_ptr<const Summable> all_reduce(const GroupSpec&, int, std::unique_ptr<Summable>) override;

  // PostListener, on the post's thread
  void arrived(int peer, Frame frame) override;
  std::string admit(const Greeting& greeting) override;
  void welcomed(const Greeting&) override {}
  void turned_away(const std::string&) override {}
  void silent(int peer, bool is_silent) override;
  Packed details() override { return {}; }
  Packed beat() override;

  /// A worker has come, with the lock held. Its state is set already.
  virtual void came(int rank) = 0;
  /// A worker has died, with the lock held.
  virtual void died(int rank) = 0;
  /// Sums of this generation do not come about although nobody is known to have died; with the lock held.
  virtual void sums_broken() = 0;
  /// A worker has reported the end of its segment, with the lock held.
  virtual void reported(int /*rank*/) {}

  void order(int rank, const char* what, Packed content, std::int64_t serial = 0);
  /// Their connections shall be made anew, whoever the members are.
  void forget_generation() { met_.clear(); }
  /// Tells `members` of a sum that these are the ones; nothing where no sums are.
  void order_members(const std::vector<std::int64_t>& members);
  /// Makes `generation_` that of `members`: a new one where they are not the same processes as before.
  void meet(const std::vector<std::int64_t>& members);
  void order_all(const char* what, const Packed& content, std::int64_t serial = 0);
  /// Waits until `condition` holds under the lock, looking again from time to time; throws what a worker or the centre has failed
  /// with.
  template <class Condition>
  void wait_until(std::unique_lock<std::mutex>& lock, Condition condition);
  /// Lets others in.
  void open();
  /// Runs the centre's roles on a thread of their own, if there are any.
  void start_centre();
  void join_centre();
  /// Ends all threads. The destructor of whoever overrides what they call does it first.
  void close();
  void write_status(const std::string& state);
  void mark_dead(int rank);
  /// Silence may be a long one; but those whose end the launcher has seen are dead. With the lock held; looks once in a second.
  void look_for_the_dead();
  /// The launcher has said that the process has ended and will not be started again.
  bool will_not_come(int rank) const;

  const Plan& plan_;
  Job& job_;
  StepMeter& meter_;
  std::function<void(const std::string&)> note_;
  std::unique_ptr<ProcessRuntime> runtime_;
  const bool sums_;  ///< workers need collectives
  std::atomic<bool> stop_wanted_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  WorkerTable table_;
  std::exception_ptr failure_;
  std::int64_t deaths_ = 0, joins_ = 0;
  std::optional<JobEnd> end_;  ///< what everybody is told who is there, or comes late
  std::int64_t generation_;    ///< of members of sums; later homes of the job have higher ones
  std::string rebuilt_from_;
  std::vector<StalenessCount> staleness_of_the_dead_;  ///< per block
  /// Of all workers, with the lock held.
  StalenessCount staleness_of(int block) const;

 private:
  void report_came(int peer, Frame& frame);
  std::exception_ptr count(const std::vector<StepReport>& steps);
  void beat_came(int peer, const Packed& content);
  void worker_listens(int peer, const std::string& channel);
  void relay(int peer, Frame& frame);
  void meeting_place(int peer, Frame& frame);
  JobStatus status(const std::string& state) const;
  WorkerStatus status_of(int rank) const;
  void remember();
  void begin_status();
  void tell_the_end(const JobEnd& end, bool others_come);
  void say_where(int rank);
  void say_end(int rank);

  MeetingBoard board_;                                      ///< guarded by mutex_
  WorkerEntry::Clock::time_point last_look_;                ///< for the dead
  std::vector<std::pair<std::int64_t, std::int64_t>> met_;  ///< ranks and processes of this generation
  std::map<std::string, int> places_;                       ///< of channels that workers receive; guarded by mutex_
  std::optional<double> train_loss_, test_accuracy_;
  std::string state_ = "waiting";
  std::unique_ptr<MetricsPage> page_;
  std::jthread centre_;
  std::unique_ptr<Post> post_;
  std::jthread status_writer_;  ///< last: it and the post's thread use all of the above
};

template <class Condition>
void Home::wait_until(std::unique_lock<std::mutex>& lock, Condition condition) {
  while (!condition()) {
    if (failure_) std::rethrow_exception(failure_);
    changed_.wait_for(lock, std::chrono::milliseconds(50));
  }
  if (failure_) std::rethrow_exception(failure_);
}

// By whether membership is free.
std::unique_ptr<Execution> make_free_home(const Plan& plan, Job& job, StepMeter& meter,
                                          std::function<void(const std::string&)> note);
std::unique_ptr<Execution> make_fixed_home(const Plan& plan, Job& job, StepMeter& meter,
                                           std::function<void(const std::string&)> note);

}  // namespace rubato
