#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "cluster/process_link.h"
#include "cluster/worker_record.h"
#include "rubato/job/execution.h"
#include "rubato/job/plan.h"
#include "rubato/membership/coordinator_machine.h"

namespace rubato {

class MetricsPage;

/// The coordinator of a job of several processes: it holds the centre, or a copy of each replica's state, and the run folder,
/// tells workers what to do and knows how they are. What it decides stands in membership::CoordinatorMachine; here its actions
/// and tasks are carried out.
///
/// Thread rules: the trainer's thread calls `run`, the transport's thread everything of TransportListener, the conductor, where
/// membership is free, begins workers while the trainer tests. `mutex_` guards the machine and what stands beside it. Actions are
/// carried out under it: none blocks. Tasks are not: they compute, and belong to the trainer's thread.
class Coordinator final : public Execution, public ProcessLink {
 public:
  Coordinator(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note);
  /// Opens the metrics page, if one is wanted. UsageError, DataError.
  void serve_metrics();
  ~Coordinator() override;

  std::int64_t run(std::int64_t begin, std::int64_t end) override;
  void stop() override { stop_wanted_ = true; }
  bool stop_was_asked() const override { return stop_asked_; }
  double now() const override { return runtime_->now(); }
  const char* kind() const override { return "processes"; }
  StalenessCount staleness(int block) const override;
  std::string digest() const override;
  void finish(const JobEnd& end) override;
  void refuse(const JobEnd& end) override;
  void tell(double train_loss, std::optional<double> test_accuracy) override;
  bool pauses_between_segments() const override { return group_.policy == membership::Policy::fixed; }

 protected:
  // Neighbours
  void listens(const std::string& channel) override;
  std::shared_ptr<const Summable> all_reduce(const GroupSpec&, int, std::unique_ptr<Summable>) override;

  // TransportListener, on the transport's thread
  void arrived(int peer, Frame frame) override;
  std::string admit(const Greeting& greeting) override;
  void refused(int rank, const std::string& reason) override;
  void welcomed(const Greeting&) override {}
  void turned_away(const std::string&) override {}
  void silent(int peer, bool is_silent) override;
  Packed details() override { return {}; }
  Packed beat() override;

 private:
  using Clock = std::chrono::steady_clock;

  void open();
  void begin_status();
  void remember();
  void pump(std::unique_lock<std::mutex>& lock);
  void act(Packed* incoming = nullptr);
  void send(const membership::Send& send, const Packed* incoming);
  void post_message(int rank, const membership::Message& message, Packed content);
  void carry_out_deferred(std::unique_lock<std::mutex>& lock);
  Packed kept(const membership::Send& send) const;
  void look_at_launcher(std::unique_lock<std::mutex>& lock);
  void carry_out(const membership::Task& task);
  void rebuild_centre(const std::vector<int>& ranks);
  void keep_states(const membership::SegmentEnded& ended);
  void gather(const membership::SegmentEnded& ended);
  void start_centre();
  void join_centre();
  void tell_the_end(const JobEnd& end, bool others_come);
  void say_where(int rank);
  void worker_listens(int peer, const std::string& channel);
  void report_came(int peer, Frame& frame);
  void beat_came(int peer, Frame& frame);
  void count(int rank, const WorkerFigures& figures);
  void lost(int rank);
  StalenessCount staleness_of(int block) const;
  int replica_of(int rank) const { return rank / plan_.place.parts; }
  JobStatus status() const;
  void write_status();
  WorkerRecord& worker(int rank) { return workers_[static_cast<std::size_t>(rank)]; }

  const Plan& plan_;
  Job& job_;
  StepMeter& meter_;
  std::function<void(const std::string&)> note_;
  const membership::GroupOptions group_;
  std::unique_ptr<ProcessRuntime> runtime_;
  std::atomic<bool> stop_wanted_{false};
  bool stop_asked_ = false;        ///< by anybody; of the trainer's thread
  Clock::time_point last_look_{};  ///< at the launcher's file; of the thread that pumps

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  membership::CoordinatorMachine machine_;
  std::vector<WorkerRecord> workers_;
  std::vector<membership::Send> deferred_;             ///< their content has to be packed first
  std::vector<StalenessCount> staleness_of_the_dead_;  ///< per block
  std::map<std::string, int> places_;                  ///< of channels that workers receive
  std::optional<double> train_loss_, test_accuracy_;
  std::string state_ = "waiting", rebuilt_from_;

  std::mutex writing_;  ///< one writes the status at a time
  std::unique_ptr<MetricsPage> page_;
  std::jthread centre_, conductor_;
  std::unique_ptr<Transport> transport_;
  std::jthread status_writer_;  ///< last: it and the transport's thread use all of the above
};

}  // namespace rubato
