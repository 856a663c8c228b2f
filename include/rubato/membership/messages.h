#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rubato::membership {

/// A process of a job. One that has been started again is another process.
struct ProcessId {
  std::int64_t id = 0;
  std::string host;
  int incarnation = 0;  ///< how often it has been started again
  bool operator==(const ProcessId&) const = default;
};

/// One sum of a group of replicas, and when it is asked for.
struct SumId {
  std::string group;
  std::int64_t begun = 0;    ///< version of the members when it was begun
  std::int64_t number = 0;   ///< how many sums of the group came before, in that version
  std::int64_t version = 0;  ///< of the members when the question is put
  bool operator==(const SumId&) const = default;
};

// Orders: coordinator to worker. Every one may be lost, doubled or late; a worker that has carried it out ignores it.

/// Where a replica's state comes from.
enum class Source {
  itself,   ///< the worker has what it needs
  part,     ///< the complete state that the coordinator keeps, in the order
  weights,  ///< the weights in the order
  centre,   ///< the worker asks the centre
};

/// Worker `rank` accepts connections at `endpoint`.
struct Neighbour {
  int rank = 0;
  std::string endpoint;
  bool operator==(const Neighbour&) const = default;
};

/// Run steps [begin, end).
struct Begin {
  Source from = Source::itself;
  std::int64_t term = 0, segment = 0;  ///< a worker takes only what is newer than what it has had
  std::int64_t begin = 0, end = 0;
  std::int64_t version = 0;           ///< of the members
  std::vector<std::int64_t> members;  ///< replicas that take part in sums; empty: there are no sums
  std::vector<Neighbour> neighbours;  ///< workers whose roles exchange messages with this one's
  bool operator==(const Begin&) const = default;
};

/// Give up segment `segment` of this term, and everything of earlier terms.
struct Abort {
  std::int64_t term = 0, segment = 0;
};

/// How a segment ends before its time.
enum class HaltHow {
  hold,    ///< take no more batches, and say in the status where the replica is
  end_at,  ///< go on up to `step`
  stop,    ///< end where it is
};
struct Halt {
  HaltHow how = HaltHow::stop;
  std::int64_t term = 0, segment = 0;
  std::int64_t step = 0;
};

/// The job is over; the exit code of every process.
struct Leave {
  int code = 0;
  std::string why;
};
/// Replicas that take part in sums from now on.
struct Members {
  std::int64_t version = 0;
  std::vector<std::int64_t> replicas;
};
/// What a member has left at the rendezvous.
struct Found {
  std::string key, value;
};
/// Say what the replica's weights are.
struct GiveWeights {};
/// Report the end of the segment again: the report was lost.
struct SayAgain {};

// Reports: worker to coordinator.

enum class Phase { idle, running, finished, failed, leaving };

/// Where a worker is. Sent whenever that changes and with every beat.
struct Status {
  std::int64_t serial = 0;  ///< older ones are ignored
  ProcessId process;
  Phase phase = Phase::idle;
  std::int64_t term = 0, segment = 0;  ///< of the segment that runs or ran last
  std::int64_t step = 0;
  bool holds = false;        ///< takes no more batches; `step` is final
  bool stop_wanted = false;  ///< somebody wants the job to end
  std::int64_t version = 0;  ///< of the members that it knows
};
/// The segment has been run; its content is the replica's state, or weights, where the coordinator keeps them.
struct Finished {
  ProcessId process;
  std::int64_t term = 0, segment = 0, position = 0;
  std::string digest;
};
struct Failed {
  ProcessId process;
  int code = 0;
  std::string sentence;
};
/// The content: sets of all blocks.
struct Weights {
  ProcessId process;
  std::int64_t step = 0;
};
/// The worker knows that the job is over.
struct Left {
  ProcessId process;
};
/// Connections between members of this version have failed although nobody is known to have died.
struct Broken {
  std::int64_t version = 0;
};
/// For the rendezvous.
struct Put {
  std::string key, value;
};
struct Look {
  std::string key;
};

// Both ways.

/// Whether a sum was finished at the other members. To a worker: `member` asks.
struct SumAsked {
  std::int64_t member = 0;
  SumId sum;
};
/// What a member knows of a sum that is finished elsewhere or not.
enum class SumOutcome {
  lacking,   ///< it was not finished here, and will not be without the one who asks
  finished,  ///< here it is
  gone,      ///< it was finished, and so were others after it
};
/// The content: its tensors, if it was finished. To the coordinator: for `member`. To a worker: from `member`.
struct SumAnswered {
  std::int64_t member = 0;
  SumId sum;
  SumOutcome outcome = SumOutcome::lacking;
  int parts = 0;
  float weight = 0;
};

using Message = std::variant<Begin, Abort, Halt, Leave, Members, Found, GiveWeights, SayAgain, Status, Finished, Failed, Weights,
                             Left, Broken, Put, Look, SumAsked, SumAnswered>;

struct MessageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string encode(const Message& message);
/// MessageError where `bytes` are not what `encode` writes.
Message decode(std::string_view bytes);

}  // namespace rubato::membership
