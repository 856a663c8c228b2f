#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubato/context/message.h"

namespace rubato {

/// Where members of a group leave word for each other, such as their addresses: small values by key. Thread-safe.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual void put(const std::string& key, const std::string& value) = 0;
  /// The value, waiting a moment for it; nothing: it has not been put yet.
  virtual std::optional<std::string> get(const std::string& key) = 0;
};

/// What a member asks others after one of them has died: whether a sum was finished there.
struct SumQuestion {
  std::string group;
  std::int64_t number = 0;         ///< how many sums of the group came before
  std::int64_t group_version = 0;  ///< of the members
};

/// all_reduce between processes, on c10d's Gloo backend. One group of connections for each name of a sum. Thread-safe.
///
/// When a member dies, those left get a new group version of members (`set_members`) and finish the sum without it. Some of them
/// may have finished it with the dead one's part: they give the others their result, so that all go on from the same.
class Collectives {
 public:
  /// `address`: of this machine, as the other members reach it. They meet at `place`.
  Collectives(std::string address, std::shared_ptr<Rendezvous> place);
  ~Collectives();

  /// Between segments: `members` are replicas, this is `replica`, and its part is number `part`. Groups of another term or
  /// group version are forgotten; all members name the same.
  void meet(std::int64_t term, std::int64_t group_version, const std::vector<std::int64_t>& members, int replica, int part);
  /// Those still alive.
  void set_members(std::int64_t group_version, const std::vector<std::int64_t>& members);
  /// Blocks. Throws Stopped after `interrupt`.
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  /// Everybody who waits is to stop.
  void interrupt();
  /// Forgets all groups and the interrupt.
  void clear();

  // After a death.

  /// Puts a question to all other members; `answer` is called for each answer.
  void ask_with(std::function<void(const SumQuestion&)> ask);
  /// Says so when connections of this group version have failed and nothing has come of it: whoever watches then makes a new
  /// group version, of the same members where all of them are alive.
  void complain_with(std::function<void(std::int64_t group_version)> complain);
  /// Of another member: the sum's bytes, if it was finished here; null: it was not, and will not be without the one who asks.
  std::shared_ptr<const Summable> finished(const SumQuestion& question);
  /// Of `member`, to a question of ours. `sum` null: not finished there.
  void answer(std::int64_t member, const SumQuestion& question, std::shared_ptr<const Summable> sum);

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace rubato
