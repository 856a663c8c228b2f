#include "rubato/membership/sum_machine.h"

#include <algorithm>
#include <cstdint>

namespace rubato::membership {
namespace {

constexpr std::size_t versions_remembered = 64;

}  // namespace

void SumMachine::meet(std::int64_t version, const std::vector<std::int64_t>& members, std::int64_t me) {
  me_ = me;
  if (version <= version_) return;
  version_ = version;
  members_ = members;
  lacking_.clear();
  giver_.reset();
  gone_ = false;
  while (finished_.size() > versions_remembered) finished_.erase(finished_.begin());
  if (state_ == State::stranded || state_ == State::asking) {
    state_ = State::asking;
    since_ = -2 * between_questions;
  }
}

void SumMachine::begin(double now) {
  state_ = State::to_add_up;
  begun_ = version_;
  number_ = finished_[version_];
  since_ = now;
}

bool SumMachine::added_up(std::int64_t version, double now) {
  if (state_ != State::adding_up) return false;
  if (version != version_ || begun_ != version_) {
    strand(now);
    return false;
  }
  finish();
  return true;
}

void SumMachine::failed(std::int64_t version, double now) {
  if (state_ == State::adding_up && version == begun_) strand(now);
}

/// Questions make sense once the members are others than when the sum was begun.
void SumMachine::strand(double now) {
  since_ = now;
  state_ = State::stranded;
  if (version_ == begun_) return;
  state_ = State::asking;
  since_ = now - 2 * between_questions;
}

SumMachine::Task SumMachine::next(double now) {
  switch (state_) {
    case State::idle:
    case State::adding_up:
      return Task::none;
    case State::to_add_up:
      begun_ = version_;
      number_ = finished_[version_];
      state_ = State::adding_up;
      return Task::add_up;
    case State::stranded:
      if (now - since_ < before_complaining) return Task::none;
      since_ = now;
      return Task::complain;
    case State::asking:
      break;
  }
  if (giver_) return Task::take;
  if (gone_) return Task::alone;
  if (all_others_lack()) {
    state_ = State::to_add_up;
    return next(now);
  }
  if (now - since_ < between_questions) return Task::none;
  since_ = now;
  return Task::ask;
}

void SumMachine::taken() {
  if (giver_) last_ = {group_, begun_, number_, 0};
  finished_[begun_] = number_ + 1;
  giver_.reset();
  gone_ = false;
  lacking_.clear();
  state_ = State::idle;
}

std::optional<SumOutcome> SumMachine::asked(const SumId& sum) const {
  if (sum.version != version_) return std::nullopt;
  if (last_.begun == sum.begun && last_.number == sum.number) return SumOutcome::finished;
  const auto counted = finished_.find(sum.begun);
  const bool finished = counted != finished_.end() && counted->second > sum.number;
  return finished ? SumOutcome::gone : SumOutcome::lacking;
}

bool SumMachine::answered(std::int64_t member, const SumId& sum, SumOutcome outcome) {
  if (state_ != State::asking || sum != question() || giver_) return false;
  switch (outcome) {
    case SumOutcome::lacking:
      lacking_.insert(member);
      return false;
    case SumOutcome::gone:
      gone_ = true;
      return false;
    case SumOutcome::finished:
      giver_ = member;
      return true;
  }
  return false;
}

bool SumMachine::all_others_lack() const {
  return std::all_of(members_.begin(), members_.end(),
                     [&](std::int64_t member) { return member == me_ || lacking_.contains(member); });
}

void SumMachine::finish() {
  finished_[begun_] = number_ + 1;
  last_ = {group_, begun_, number_, 0};
  state_ = State::idle;
}

}  // namespace rubato::membership
