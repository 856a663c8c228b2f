#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "rubato/membership/coordinator_machine.h"
#include "rubato/membership/sum_machine.h"
#include "rubato/membership/worker_machine.h"

// A job in a world of its own: processes, a launcher, a disk and a network that loses, doubles and reorders messages, all from
// one seed and in virtual time. The machines under test are the ones that real processes have; everything around them is
// simulated.

namespace membership_world {

using namespace rubato::membership;

/// xorshift64*: the histories need many numbers and no quality.
struct Random {
  std::uint64_t state;
  explicit Random(std::uint64_t seed) : state(seed * 0x9E3779B97F4A7C15ULL + 0x2545F4914F6CDD1DULL) { next(); }
  std::uint64_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1DULL;
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double between(double low, double high) { return low + (high - low) * uniform(); }
  int below(int n) { return static_cast<int>(next() % static_cast<std::uint64_t>(n)); }
  bool chance(double p) { return uniform() < p; }
};

/// What a replica has learned: one for each step, and a hash of all that it has summed with others.
struct Replica {
  std::int64_t steps = 0;
  std::uint64_t sums = 0;
};

struct Envelope {
  Message message;
  Replica state;  ///< attached
};

enum class Fault {
  kill_worker,
  stop_worker,
  cut_link,
  kill_coordinator,
  kill_launcher,
  fill_disk,
  ask_to_stop,
  fail_worker,
  signal_worker
};
inline constexpr int faults = 9;

/// What a history was made of, for the report of one that fails.
struct Plan {
  std::uint64_t seed = 0;
  GroupOptions group;
  std::int64_t segment_steps = 0;
  double loss = 0, doubling = 0, slowest = 0;  ///< of messages
  int restarts = 0;
  std::vector<std::pair<double, Fault>> faults;
};
Plan plan_of(std::uint64_t seed);

class World {
 public:
  explicit World(const Plan& plan);
  /// Until every process has ended. Returns what is wrong; empty: nothing.
  std::string run();
  double ended() const { return now_; }
  bool trace = false;

 private:
  enum class Kind : std::uint8_t {
    to_worker,       // slot
    to_coordinator,  // slot
    welcome,
    who,
    hello,  // slot: a Status
    beat_of_worker,
    beat_of_coordinator,
    heard_by_worker,
    tick_worker,
    tick_coordinator,
    worker_step,
    worker_opened,
    worker_task,
    trainer_task,
    start_worker,
    start_coordinator,
    worker_continues,
    link_heals,
    told_gone,
    sum_done,
    sum_fails,
    fault,
  };
  struct Event {
    double at;
    std::uint32_t order;
    Kind kind;
    std::int16_t who;
    std::int32_t slot;
    std::uint32_t life;  // of whoever it is for: it is void for another
    bool operator<(const Event& other) const { return at != other.at ? at > other.at : order > other.order; }
  };
  struct Coordinator {
    std::optional<CoordinatorMachine> machine;
    std::uint32_t life = 0;
    int incarnation = 0;
    bool alive = false;
    std::vector<std::optional<ProcessId>> admitted;
    std::vector<double> heard;
    std::vector<bool> silent;
    std::vector<Replica> kept;      // replicas, as of position
    std::vector<Replica> received;  // what came last from each worker
    std::int64_t position = 0;
    bool task_taken = false;
    std::optional<int> exit_code;
    int code = 0;
    bool stopped = false;  // as the trainer has been told
    bool over = false;
  };
  struct Worker {
    std::optional<WorkerMachine> machine;
    std::optional<SumMachine> sum;
    std::uint32_t life = 0;
    int incarnation = 0;
    bool alive = false, stopped = false, gone = false, finished_ok = false;
    double stopped_until = 0, cut_until = 0;
    double heard = 0;
    bool silent = false, welcomed = false;
    double pace = 0;
    Replica replica;
    Replica given;  // by another member, for a sum
    std::uint64_t last_sum = 0;
    // the segment that runs
    bool running = false, interrupted = false, opened = false, waiting = false, holding = false;
    std::int64_t at = 0;
    std::optional<std::int64_t> until;
    std::optional<Begin> begin;
    Replica begin_state;
    bool in_sum = false;
    std::int64_t sum_version = -1;
    int exit_code = -1;
    std::vector<Event> late;  // while it is stopped
  };
  /// Members of one version that have begun the arithmetic of one sum.
  struct Arithmetic {
    std::vector<int> ranks;
    std::vector<std::uint32_t> lives;
    std::uint64_t value = 0;
    bool complete = false;
  };

  void at(double when, Kind kind, int who, std::uint32_t life, std::int32_t slot = -1);
  std::int32_t keep(Envelope envelope);
  void handle(const Event& event);
  void mail(Kind kind, int who, std::uint32_t life, std::int32_t slot);
  bool reachable(int rank) const { return now_ >= workers_[static_cast<std::size_t>(rank)].cut_until; }
  Worker& worker(int rank) { return workers_[static_cast<std::size_t>(rank)]; }

  void start_worker(int rank);
  void start_coordinator();
  void end_worker(int rank, int code, bool killed);
  void kill_coordinator();
  void coordinator_acts();
  void coordinator_heard(int rank);
  void coordinator_takes(int rank, const Envelope& envelope);
  void trainer();
  void keep_states(const SegmentEnded& ended);
  void next_segment();
  std::int64_t segment_end() const;
  void job_over(int code);
  void worker_is_signalled(int rank);
  void worker_acts(int rank);
  void worker_report(int rank, const Message& message, bool with_state);
  void worker_takes(int rank, const Envelope& envelope);
  void worker_heard(int rank);
  void worker_main(int rank);
  void run_segment(int rank);
  void step(int rank);
  void finish_step(int rank);
  void segment_over(int rank, bool interrupted);
  void sum_next(int rank);
  void sum_joins(int rank);
  void sum_result(int rank, std::uint64_t value);
  void strike(Fault fault);
  void wrong(const std::string& what);
  bool over() const;
  std::string verdict() const;

  Plan plan_;
  Random random_;
  double now_ = 0;
  std::uint32_t order_ = 0, lives_ = 0;
  std::priority_queue<Event> events_;
  std::vector<Envelope> pool_;
  std::vector<std::int32_t> free_;
  Coordinator coordinator_;
  std::vector<Worker> workers_;
  std::vector<int> restarts_;
  bool launcher_alive_ = true, disk_full_ = false, stop_asked_ = false, signal_heard_ = false, long_way_left_ = false,
       failed_once_ = false;
  std::int64_t saved_position_ = 0;  // checkpoint
  std::vector<Replica> saved_;
  std::map<std::pair<std::int64_t, std::int64_t>, Arithmetic> arithmetic_;  // by version and number
  std::map<std::pair<std::int64_t, std::int64_t>, std::uint64_t> results_;
  std::set<int> ends_;  ///< codes that coordinators have ended the job with: one may die while it says so
  std::string wrong_;
  Envelope current_;
};

}  // namespace membership_world
