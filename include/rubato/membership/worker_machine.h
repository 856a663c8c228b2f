#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "rubato/membership/coordinator_machine.h"
#include "rubato/membership/messages.h"

namespace rubato::membership {

struct WorkerOptions {
  Policy policy = Policy::fixed;
  bool sums = false;     ///< replicas sum among themselves: without a coordinator nobody says who has left
  double patience = 60;  ///< seconds that the worker waits for its coordinator
  ProcessId process;
};

// Actions of a worker; none may block.

/// What travels with a report.
struct Report {
  Message message;
  bool with_state = false;  ///< the replica's state, or weights, as of the end of the segment
};
/// Ends the segment that runs: every role gives up.
struct Interrupt {};
/// The batch source: take no more and report `holding`; go on up to `step`; end.
struct HaltSource {
  HaltHow how = HaltHow::stop;
  std::int64_t step = 0;
};
struct SetMembers {
  Members members;
};
/// Whether those who can go on without the coordinator have to.
struct SetAway {
  bool away = false;
};
/// Another process is the coordinator from now on: it must learn which channels are received here.
struct NewCoordinator {
  bool first = false;
};
struct Answer {
  Message message;  ///< Found, SumAsked, SumAnswered or GiveWeights, for whoever knows
};
using WorkerAction = std::variant<Report, Interrupt, HaltSource, SetMembers, SetAway, NewCoordinator, Answer>;
using WorkerActions = std::vector<WorkerAction>;

// Tasks of the worker's main thread.

/// Forget what is on its way: a new term begins.
struct ForgetTerm {
  std::int64_t term = 0;
};
/// Run the segment; then say `segment_ended`, `segment_interrupted` or `segment_failed`.
struct RunSegment {
  Begin begin;
};
/// End the process.
struct Exit {
  int code = 0;
  std::string why;
  bool told = false;   ///< the coordinator has said so
  bool alone = false;  ///< the coordinator is lost: the weights are worth saving
};
using WorkerTask = std::variant<std::monostate, ForgetTerm, RunSegment, Exit>;

/// What a worker of a job does: it follows the coordinator's orders, each once, and says where it is.
///
/// A pure state machine, as CoordinatorMachine.
class WorkerMachine {
 public:
  /// Seconds in which a worker that was asked to stop can tell so to a coordinator that it does not hear: the whole job shall
  /// end.
  static constexpr double longest_wish = 1;

  WorkerMachine(const WorkerOptions& options, double now) : options_(options), since_(now) {}

  // What the coordinator says, and what is known of it.
  void received(const Message& message, double now);
  /// The content that came with the message belongs to `task()`, if that is a RunSegment of this message.
  void welcomed(const ProcessId& coordinator, double now);
  void turned_away(const std::string& reason);
  void silent(bool is_silent, double now);
  /// The coordinator, in the same process or seen to end, has ended with this code.
  void coordinator_ended(int code);

  // What this process does.
  void stop_requested() { stop_wanted_ = true; }
  /// The source of the segment is open.
  void opened();
  void holding(std::int64_t step);
  void segment_ended(std::int64_t position, const std::string& digest);
  void segment_interrupted();
  void segment_failed(int code, const std::string& sentence);
  void tick(double now);

  const WorkerTask& task() const { return task_; }
  /// The task was taken up (RunSegment) or is done (ForgetTerm).
  void task_taken();
  WorkerActions take_actions() { return std::exchange(actions_, {}); }

  /// With the step at which the replica is now.
  Status status(std::int64_t step);
  Phase phase() const { return phase_; }
  std::int64_t term() const { return term_; }
  std::int64_t segment() const { return segment_; }
  bool runs() const { return phase_ == Phase::running; }
  /// Whether the replica's weights are those of its segment: before it has begun they are anything.
  bool has_weights() const { return phase_ == Phase::finished || (busy_ && opened_ && !interrupted_); }
  bool knows_coordinator() const { return coordinator_.has_value(); }

 private:
  void begin(const Begin& begin);
  void abort(const Abort& abort);
  void halt(const Halt& halt);
  void leave(const Leave& leave);
  void say_again();
  void say_status();
  void settle();
  void interrupt();
  /// Asked to stop, and nobody has heard of it.
  bool unheard(double now) const { return stop_since_ && now - *stop_since_ > longest_wish; }
  bool alone(double now) const { return silent_since_ && now - *silent_since_ > options_.patience; }

  WorkerOptions options_;
  double since_;
  WorkerActions actions_;
  WorkerTask task_;
  Phase phase_ = Phase::idle;
  bool busy_ = false;         ///< the main thread runs a segment
  bool interrupted_ = false;  ///< and was told to give it up
  bool opened_ = false;       ///< its source
  std::int64_t term_ = 0, segment_ = 0, step_ = 0, serial_ = 0, version_ = 0;
  std::optional<Begin> next_;    ///< after the task
  std::optional<Abort> forget_;  ///< as soon as nothing runs: a term begins, or this segment of it is over
  std::optional<Exit> exit_;     ///< as soon as nothing runs
  std::optional<Halt> halt_;
  std::optional<Members> members_;  ///< the newest
  bool holds_ = false, stop_wanted_ = false;
  std::optional<Message> report_;  ///< of the last segment
  std::optional<ProcessId> coordinator_;
  std::optional<double> silent_since_, stop_since_;
};

}  // namespace rubato::membership
