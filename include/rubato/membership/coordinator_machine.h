#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "rubato/membership/messages.h"
#include "rubato/membership/rendezvous_board.h"

namespace rubato::membership {

/// Exit codes that the machines give by themselves; those of core/error.h.
inline constexpr int exit_ok = 0, exit_usage = 2, exit_data = 3, exit_interrupted = 130;

/// Who may take part when.
enum class Policy {
  free,   ///< each worker runs once, from its first step to the last; workers come and go, nobody waits for another
  fixed,  ///< all workers run segment by segment and wait for each other
};

/// What the others do when one is lost in a segment of a fixed group.
enum class WhenWorkerDies {
  proceed,  ///< finish the segment without it
  wait,     ///< go back to the last kept state and wait until it is there again
  stop,     ///< end the job
};

/// What does not change while a job runs.
struct GroupOptions {
  Policy policy = Policy::fixed;
  WhenWorkerDies when_worker_dies = WhenWorkerDies::wait;
  int workers = 1;
  int parts = 1;         ///< processes of one replica
  bool sums = false;     ///< replicas sum among themselves, and may send each other messages
  bool centre = false;   ///< the coordinator holds a centre, which estimates the replicas' mean
  double patience = 60;  ///< seconds that the job waits for workers
  double silence = 1.5;  ///< seconds after which a worker that says nothing may be dead
  int incarnation = 0;   ///< of the coordinator
  std::int64_t total_steps = 0;
  bool trained_before = false;  ///< the job goes on with weights that are not the model's initial ones
};

/// What travels with a message.
enum class Attachment {
  none,
  part,     ///< the complete state that is kept of the worker's replica
  weights,  ///< those that `of` has sent
  kept,     ///< the weights that are kept of the worker's replica
  same,     ///< what came with the message that is being handled
};
/// What the coordinator knows of one worker.
struct Member {
  enum class State {
    missing,   ///< has not come yet
    idle,      ///< waits for orders
    running,   ///< a segment, or gives one up
    finished,  ///< its segment, or the run
    dead,
  };
  State state = State::missing;
  bool silent = false;
  bool gone = false;     ///< the launcher has seen the end of this process and will not start it again
  bool synced = false;   ///< has the state that the coordinator keeps of it
  bool started = false;  ///< has once begun in this run
  bool left = false;     ///< knows that the job is over
  bool holds = false;    ///< takes no more batches
  ProcessId process;
  std::string endpoint;
  std::int64_t serial = -1;  ///< of its last status
  std::int64_t term = -1, segment = -1, step = 0;
  std::int64_t position = 0;  ///< where its segment ended
  std::string digest;
  bool has_weights = false;
  double weights_at = 0;
  double heard = 0, came = 0, died = 0;
  std::optional<double> wrong_since;         ///< before it came: another wanted its place
  std::string wrong;                         ///< why that was turned away
  Phase phase = Phase::idle;                 ///< as it said last
  std::int64_t delivered = -1;               ///< segment whose end it has reported in this term
  std::optional<Begin> order;                ///< what it is to run
  Attachment attachment = Attachment::none;  ///< of the order
  int attachment_of = -1;
  std::optional<Abort> abort;     ///< what it is to give up
  double ordered = 0, asked = 0;  ///< when the order was sent last, and the question for its weights

  bool present() const { return state == State::idle || state == State::running || state == State::finished; }
};

// Actions. Whoever owns the machine carries them out in order; none may block.

struct Send {
  int rank = 0;
  Message message;
  Attachment attachment = Attachment::none;
  int of = -1;
};
/// The content of the message that was just handled is to be kept: the state of the replica, or its weights.
struct Keep {
  int rank = 0;
};
/// Worker `rank` is gone: what is on its way to it is lost.
struct Lost {
  int rank = 0;
};
/// Another process has taken the place of `rank`.
struct Expect {
  int rank = 0;
};
/// Worker `rank` will send nothing more to the centre in this segment.
struct Farewell {
  int rank = 0;
};
struct Note {
  std::string sentence;
};
using Action = std::variant<Send, Keep, Lost, Expect, Farewell, Note>;
using Actions = std::vector<Action>;

// Tasks: what the trainer's thread has to do, and takes its time for, before the machine goes on.

/// Open the sources for [begin, end) and start the centre's roles.
struct OpenSegment {
  std::int64_t segment = 0, begin = 0, end = 0;
};
/// Interrupt the centre's roles and forget what is on its way: a new term begins.
struct GoBack {
  std::int64_t term = 0;
};
/// Make the centre anew from the weights of `ranks`; empty: it is as the checkpoint has it.
struct Rebuild {
  std::vector<int> ranks;
};
/// The segment is over. `kept`: workers whose state has come. `absent`: others, whose replicas begin again as the first of
/// `kept`.
struct SegmentEnded {
  std::int64_t position = 0;
  std::vector<int> kept, absent;
  bool stopped = false;  ///< somebody, the trainer or a worker, has asked for the end of the job
};
struct GroupFailed {
  int code = 0;
  std::string sentence;
};
/// Everybody who is there knows that the job is over.
struct AllTold {};
using Task = std::variant<std::monostate, OpenSegment, GoBack, Rebuild, SegmentEnded, GroupFailed, AllTold>;

/// Who takes part in a job: what its coordinator knows of the workers, and what it orders.
///
/// A pure state machine: it has no thread, socket, clock, disk or tensor. Time comes with every event, in seconds of any clock
/// that never goes back. A value: copies are independent. Whoever owns it locks, calls one member, unlocks, and carries out what
/// it returns.
///
/// Orders are wishes, not events: each worker says in its status where it is, and an order that it has not followed is sent
/// again. So messages may be lost, doubled and reordered.
class CoordinatorMachine {
 public:
  /// Seconds before an order is sent again, and between two farewells.
  static constexpr double resend = 1, say_end_every = 0.3;
  /// Seconds that what a dead worker has sent may be on its way.
  static constexpr double words_of_the_dead = 1;
  /// Longest waits: for workers to say where they are after the coordinator has been started again, for weights, for those that
  /// are told the end, for those that are still on their way when a job fails; `longest_doubt`: for the right process of a rank,
  /// once a wrong one has come.
  static constexpr double longest_return = 2, longest_doubt = 5, longest_weights = 1.5, longest_farewell = 5, longest_welcome = 3;

  explicit CoordinatorMachine(const GroupOptions& options);

  // What other processes say.

  /// A process introduces itself. Returns why it is turned away; empty: it belongs.
  std::string hello(int rank, const ProcessId& process, const std::string& endpoint, const Status& status, double now);
  void received(int rank, const Message& message, double now);
  void silent(int rank, bool is_silent, double now);
  /// Somebody with the job's key wanted to be worker `rank`, but has another configuration.
  void turned_away(int rank, const std::string& reason, double now);
  /// The launcher will not start worker `rank` again after incarnation `incarnation`.
  void gone(int rank, int incarnation, double now);
  void tick(double now);

  // What the trainer wants.

  void run_segment(std::int64_t begin, std::int64_t end, double now);
  void stop(double now);
  /// Something of the coordinator's own has failed.
  void fail(int code, const std::string& sentence);
  /// `others_come`: those that are still on their way have a moment to come, because the job has failed for want of them, or
  /// needed nobody.
  void job_over(int code, const std::string& why, bool others_come, double now);
  const Task& task() const { return task_; }
  void task_done(double now);

  /// What has to be done since the last call.
  Actions take_actions() { return std::exchange(actions_, {}); }
  /// Whether `send` is still wanted: its content took time to be packed.
  bool still_wanted(const Send& send) const;

  const std::vector<Member>& members() const { return members_; }
  std::int64_t term() const { return term_; }
  std::int64_t segment() const { return segment_; }
  std::int64_t version() const { return version_; }
  std::int64_t deaths() const { return deaths_; }
  std::int64_t joins() const { return joins_; }
  bool stop_wanted() const { return stop_wanted_; }
  /// What an earlier coordinator of the job has counted, and whom it knew.
  void remember(std::int64_t deaths, std::int64_t joins, const std::vector<ProcessId>& processes);

 private:
  enum class Stage {
    resting,    ///< no segment is wanted
    returning,  ///< free: after a restart, workers say where they are
    recalling,  ///< free: after a restart, their weights are on their way
    gathering,  ///< fixed: until all are there
    opening,    ///< a task of the trainer: open, go back, rebuild
    running,
    collecting,  ///< free: weights for the evaluation
    ended,       ///< the trainer has to take notice
    leaving,     ///< all are told that the job is over
  };

  // Both policies.
  Member& member(int rank) { return members_[static_cast<std::size_t>(rank)]; }
  const Member& member(int rank) const { return members_[static_cast<std::size_t>(rank)]; }
  int count() const { return static_cast<int>(members_.size()); }
  void send(int rank, Message message, Attachment attachment = Attachment::none, int of = -1);
  void new_process(int rank, const ProcessId& process, double now);
  void mark_dead(int rank, double now);
  void look_for_the_dead(double now);
  void status_came(int rank, const Status& status, double now);
  void finished_came(int rank, const Finished& finished, double now);
  void weights_came(int rank, const Weights& weights, double now);
  void relay_question(int rank, const SumAsked& asked);
  void relay_answer(int rank, const SumAnswered& answered);
  void put(const Put& put);
  void look(int rank, const Look& look);
  void broken(int rank, std::int64_t version);
  void came(int rank, double now);
  void lost(int rank, double now);
  void give_up(int rank, double now);
  void meet(const std::vector<int>& ranks);
  void tell_members(const std::vector<int>& ranks);
  void members_again(int rank, std::int64_t version, double now);
  void tell_end(double now);
  void leave_tick(double now);
  void set_task(Task task, Stage stage, double now);
  bool due(Member& member, double now) const;
  void reconcile(int rank, const Status& status, double now);
  void reconcile_idle(int rank, double now);
  void runs_already(int rank, double now);
  void send_order(int rank, double now);

  // Free policy.
  void free_tick(double now);

  bool free_begin_worker(int rank, double now);
  std::optional<int> donor(int rank) const;
  void ask_for(int rank, double now);
  std::vector<int> free_members() const;
  std::int64_t progress() const;
  std::int64_t least_of_finished() const;
  bool free_over(double now);
  void free_end(double now);
  void free_return(double now);
  std::vector<int> ask_weights(double now);
  bool weights_are_there(double since) const;
  void free_halt(double now);

  // Fixed policy.
  void fixed_tick(double now);
  void gather(double now);
  void begin_segment(double now);
  void fixed_running(double now);
  void order_segment(double now);
  Begin order_of(int rank, const Begin& common) const;
  void fixed_lost(int rank, double now);
  void go_back(double now);
  void order_halt(double now);
  bool takes_part(const Member& member) const;
  bool is_ready(const Member& member) const;
  std::vector<int> taking_part() const;
  std::vector<std::int64_t> replicas_of(const std::vector<int>& ranks) const;

  GroupOptions options_;
  std::vector<Member> members_;
  Actions actions_;
  Task task_;
  Stage stage_ = Stage::resting;
  std::int64_t term_ = 0, segment_ = 0;
  std::int64_t version_ = 0;                             ///< of the members of sums
  std::vector<std::pair<std::int64_t, ProcessId>> met_;  ///< processes of this version
  bool meet_anew_ = false;                               ///< their connections are not to be used any more
  std::int64_t begin_ = 0, end_ = 0;                     ///< of the segment that the trainer wants
  double since_ = 0;                                     ///< of the stage
  double last_news_ = 0;                                 ///< free: membership has changed
  std::int64_t deaths_ = 0, joins_ = 0;
  bool stop_wanted_ = false;
  std::optional<Halt> halt_;  ///< what workers that run are told
  double halted_ = 0;         ///< when
  bool place_empty_ = false;  ///< fixed: a stage has died between segments
  bool started_ = false;      ///< free: the first segment has begun
  bool trained_ = false;      ///< a worker that comes now does not begin with the model's weights
  std::int64_t floor_ = 0;    ///< free: step that workers begin at, at least
  std::optional<GroupFailed> failure_;
  RendezvousBoard board_;
  std::optional<Leave> end_of_job_;
  bool others_come_ = false;
  double over_since_ = 0, told_ = 0;
};

}  // namespace rubato::membership
