#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "cluster/orders.h"
#include "cluster/process_link.h"
#include "cluster/rendezvous.h"
#include "cluster/worker_report.h"
#include "rubato/cluster/worker.h"
#include "rubato/collectives/collectives.h"
#include "rubato/observe/step_tap.h"

namespace rubato {

// Thread rules
//  * `run` executes orders one after the other on the caller's thread; segments run there, with roles on threads of their own.
//  * The transport's thread answers at once what must not wait for a segment to end, and queues the rest. `mutex_` guards
//    the queue, the phase and what the coordinator last said; it is never held while anything is called.
class Worker::Implementation final : public ProcessLink {
 public:
  Implementation(Plan plan, std::function<void(const std::string&)> note);
  ~Implementation() override { rendezvous_->close(); }
  JobEnd run();
  void request_stop() { stop_wanted_ = true; }
  bool stop_requested() const { return stop_wanted_; }
  void coordinator_has_ended(ExitCode code) {
    const std::lock_guard lock(mutex_);
    coordinator_ended_ = code;
    changed_.notify_all();
  }

  // Neighbours
  void listens(const std::string& channel) override;
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    return collectives_.all_reduce(group, rank, std::move(part));
  }

  // TransportListener, on the transport's thread
  void arrived(int peer, Frame frame) override;
  std::string admit(const Greeting&) override { return ""; }
  void welcomed(const Greeting& coordinator) override;
  void turned_away(const std::string& reason) override;
  void silent(int peer, bool is_silent) override;
  Packed details() override;
  Packed beat() override;

 private:
  struct Order {
    std::string what;
    std::int64_t serial;
    Packed content;
  };
  void drop_what_others_hold();
  Order next_order();
  bool wait_for_coordinator();
  void execute(const BeginOrder& begin);
  void prepare(const BeginOrder& begin);
  void adopt(const Packed& weights, std::int64_t step);
  void join();
  void report_finished();
  void report(const char* about, Packed content, std::int64_t serial = 0);
  void coordinator_listens(const Frame& frame);
  void order_came(Frame frame);
  void send_weights();
  void answer_sum(Unpacker& unpacker);
  void sum_came(Unpacker& unpacker);
  void interrupt_segment();
  bool wait_for_opening(const Frame& frame);
  void opened();
  void source_order(const std::string& what, Unpacker& unpacker);
  Packed weights() const;
  [[noreturn]] void give_up(const std::string& why);

  Plan plan_;
  ProcessChoice choice_;
  std::function<void(const std::string&)> note_;
  bool free_;
  StepTap tap_;
  Job job_;
  int replica_;
  std::shared_ptr<RendezvousAtCoordinator> rendezvous_;
  Collectives collectives_;
  std::unique_ptr<ProcessRuntime> runtime_;
  std::atomic<bool> stop_wanted_{false};
  std::atomic<std::int64_t> step_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Order> orders_;
  bool opening_ = false;           ///< a segment is ordered whose source is not open yet
  std::vector<Order> at_opening_;  ///< what the coordinator has ordered of that source meanwhile
  WorkerPhase phase_ = WorkerPhase::idle;
  std::int64_t segment_ = 0;
  std::optional<std::string> turned_away_;
  std::optional<Greeting> coordinator_;
  bool coordinator_silent_ = false;
  std::optional<ExitCode> coordinator_ended_;
  std::chrono::steady_clock::time_point silent_since_;
  std::map<std::string, int> places_;     ///< of channels, as others have said
  Packed last_report_;                    ///< told again to a coordinator that has been started again
  std::unique_ptr<Transport> transport_;  ///< last: its thread uses all of the above
};

}  // namespace rubato
