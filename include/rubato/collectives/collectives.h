#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubato/context/message.h"
#include "rubato/membership/messages.h"

namespace rubato {

/// Where members of a group leave word for each other, such as their addresses: small values by key. Thread-safe.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual void put(const std::string& key, const std::string& value) = 0;
  /// The value, waiting a moment for it; nothing: it has not been put yet.
  virtual std::optional<std::string> get(const std::string& key) = 0;
};

/// all_reduce between processes, on c10d's Gloo backend. One group of connections for each name of a sum. Thread-safe.
///
/// When a member dies, those left get a new version of the members (`set_members`) and finish the sum without it. Some of them
/// may have finished it with the dead one's part: they give the others their result, so that all go on from the same
/// (membership::SumMachine).
class Collectives {
 public:
  /// `address`: of this machine, as the other members reach it. They meet at `place`.
  Collectives(std::string address, std::shared_ptr<Rendezvous> place);
  ~Collectives();

  /// Between segments: `members` are replicas, this is `replica`, and its part is number `part`. Connections of another version
  /// are forgotten; all members name the same.
  void meet(std::int64_t version, const std::vector<std::int64_t>& members, int replica, int part);
  /// Those still alive.
  void set_members(const membership::Members& members);
  /// Blocks. Throws Stopped after `interrupt`.
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  /// Everybody who waits is to stop.
  void interrupt();
  /// Forgets all groups and the interrupt.
  void clear();

  // After a death.

  /// Puts a question to all other members; `answer` is called for each answer.
  void ask_with(std::function<void(const membership::SumId&)> ask);
  /// Says so when connections of this version have failed and nothing has come of it, or when this member has missed a version:
  /// whoever watches then makes a new version, of the same members where all of them are alive, or says again who they are.
  void complain_with(std::function<void(std::int64_t version)> complain);
  /// What this member knows of a sum that another has not finished; nothing: it cannot say yet. The sum, where it is finished.
  struct Known {
    membership::SumOutcome outcome = membership::SumOutcome::lacking;
    std::shared_ptr<const Summable> sum;
  };
  std::optional<Known> asked(const membership::SumId& question);
  /// Of `member`, to a question of ours. `sum` null: it has none.
  void answer(std::int64_t member, const membership::SumId& question, membership::SumOutcome outcome,
              std::shared_ptr<const Summable> sum);

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace rubato
