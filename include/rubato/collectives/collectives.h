#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rubato/context/message.h"

namespace rubato {

/// Where members of a group find each other.
struct MeetingPlace {
  std::string host;
  int port = 0;
};

/// The store that members of collectives meet at (c10d's TCPStore): one per job, in the home. It knows no passwords: keep it on a
/// private network.
class MeetingStore {
 public:
  MeetingStore();
  ~MeetingStore();
  int port() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

/// What a member asks others after one of them has died: whether a sum was finished there.
struct SumQuestion {
  std::string group;
  std::int64_t number = 0;      ///< how many sums of the group came before
  std::int64_t generation = 0;  ///< of the members
};

/// all_reduce between processes, on c10d's Gloo backend. One group of connections for each name of a sum. Thread-safe.
///
/// When a member dies, those left get a new generation of members (`set_members`) and finish the sum without it. Some of them may
/// have finished it with the dead one's part: they give the others their result, so that all go on from the same.
class Collectives {
 public:
  /// `address`: of this machine, as the other members reach it.
  explicit Collectives(std::string address);
  ~Collectives();

  /// Between segments: `members` are replicas, this is `replica`, and its part is number `part`. Groups of another era or
  /// generation are forgotten; all members name the same.
  void meet(const MeetingPlace& place, std::int64_t era, std::int64_t generation, const std::vector<std::int64_t>& members,
            int replica, int part);
  /// Those still alive, and where they meet.
  void set_members(const MeetingPlace& place, std::int64_t generation, const std::vector<std::int64_t>& members);
  /// Blocks. Throws Stopped after `interrupt`.
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  /// Everybody who waits is to stop.
  void interrupt();
  /// Forgets all groups and the interrupt.
  void clear();

  // After a death.

  /// Puts a question to all other members; `answer` is called for each answer.
  void ask_with(std::function<void(const SumQuestion&)> ask);
  /// Of another member: the sum's bytes, if it was finished here; null: it was not, and will not be without the one who asks.
  std::shared_ptr<const Summable> finished(const SumQuestion& question);
  /// Of a member, to a question of ours. `sum` null: not finished there.
  void answer(const SumQuestion& question, std::shared_ptr<const Summable> sum);

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace rubato
