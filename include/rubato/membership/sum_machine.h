#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "rubato/membership/messages.h"

namespace rubato::membership {

/// The sums of one group, as one member knows them: which are finished, and what becomes of one that a death has interrupted.
///
/// A pure state machine: no clock, no thread, no tensor. Whoever owns it does the arithmetic, keeps the result of the last sum
/// and carries the messages.
///
/// Sums are numbered from the beginning of a version of the members, because all members of a version begin it together, also
/// those that are new. A sum is finished only if the version in which it was begun is still the newest known when its arithmetic
/// ends. Whose sum is not finished when the members change asks all others. An answer is given only by who knows the asker's
/// version, so "lacking" stays true: the sum is done anew by those who are left, or taken from one who has it, and is the same
/// for all of them.
class SumMachine {
 public:
  /// What the owner has to do.
  enum class Task {
    none,      ///< wait
    add_up,    ///< begin the arithmetic in `version()` with `members()`
    complain,  ///< nothing comes of the connections: tell the coordinator `Broken{version()}`
    ask,       ///< send `question()` to all other members
    take,      ///< the sum is what `giver()` has sent
    alone,     ///< the others have left this member too far behind: it goes on with its own part
  };

  /// Seconds between complaints and between questions.
  static constexpr double before_complaining = 2, between_questions = 1;

  explicit SumMachine(std::string group) : group_(std::move(group)) {}

  /// The members are these from now on; `me` is one of them. An older version than the newest known changes nothing.
  void meet(std::int64_t version, const std::vector<std::int64_t>& members, std::int64_t me);

  /// A sum begins; the one before has ended.
  void begin(double now);
  /// The arithmetic that was begun in `version` has ended well. True: the sum is finished.
  bool added_up(std::int64_t version, double now);
  /// It has failed, or was given up because the members have changed.
  void failed(std::int64_t version, double now);
  /// What has to be done now; each task is named once, `complain` and `ask` again from time to time.
  Task next(double now);
  /// The owner has taken what another gave, or goes on alone.
  void taken();

  /// What this member says to another's question; nothing: it does not know the asker's version yet, or knows a newer one.
  std::optional<SumOutcome> asked(const SumId& sum) const;
  /// Whether the asker knows newer members than this one: what has told it so was lost, and the coordinator will say it again to
  /// `Broken{version()}`. Else a sum may wait for ever for members that have left its version.
  bool is_behind(const SumId& sum) const { return sum.version > version_; }
  /// Another member's answer. True: it gives the sum that is asked for, and the owner keeps what came with it.
  bool answered(std::int64_t member, const SumId& sum, SumOutcome outcome);

  SumId question() const { return {group_, begun_, number_, version_}; }
  std::int64_t version() const { return version_; }
  const std::vector<std::int64_t>& members() const { return members_; }
  std::int64_t giver() const { return *giver_; }
  bool busy() const { return state_ != State::idle; }

 private:
  enum class State { idle, to_add_up, adding_up, stranded, asking };

  void strand(double now);
  bool all_others_lack() const;
  void finish();

  std::string group_;
  State state_ = State::idle;
  std::int64_t version_ = -1, me_ = 0;
  std::vector<std::int64_t> members_;
  std::map<std::int64_t, std::int64_t> finished_;  ///< sums, per version
  std::int64_t begun_ = -1, number_ = 0;           ///< of the sum under way
  SumId last_{"", -1, -1, -1};                     ///< finished here by arithmetic or taken
  std::set<std::int64_t> lacking_;
  std::optional<std::int64_t> giver_;
  bool gone_ = false;
  double since_ = 0;  ///< last complaint or question
};

}  // namespace rubato::membership
