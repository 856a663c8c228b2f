#include <algorithm>
#include <cstdint>

#include "rubato/membership/coordinator_machine.h"

// Workers that come, go and die as they like: each runs once, from its first step to the last. A segment of the trainer ends when
// the slowest worker alive has passed its end; nobody waits for it.

namespace rubato::membership {
namespace {

constexpr std::int64_t the_run = 1;  ///< the only segment of a worker

}  // namespace

void CoordinatorMachine::free_tick(double now) {
  switch (stage_) {
    case Stage::returning:
    case Stage::recalling:
      return free_return(now);
    case Stage::opening:
      return;
    case Stage::collecting:
      if (!weights_are_there(since_) && now - since_ < longest_weights) return;
      return free_end(now);
    default:
      break;
  }
  if (!started_) return;
  for (int rank = 0; rank < count(); ++rank) {
    if (member(rank).state != Member::State::idle || member(rank).silent) continue;
    if (stop_wanted_) {
      member(rank).state = Member::State::finished;
    } else {
      free_begin_worker(rank, now);
    }
  }
  if (stop_wanted_) free_halt(now);
  if (stage_ != Stage::running) return;
  const bool over = free_over(now);
  if (!over && (stop_wanted_ || progress() < end_)) return;
  if (failure_) return;
  if (options_.centre) return free_end(now);
  ask_weights(now);
  stage_ = Stage::collecting;
  since_ = now;
}

/// After the coordinator has been started again: survivors know more than the last checkpoint.
void CoordinatorMachine::free_return(double now) {
  const auto missing = [](const Member& is) { return is.state == Member::State::missing && !is.gone; };
  if (stage_ == Stage::returning) {
    if (now - since_ < longest_return && std::any_of(members_.begin(), members_.end(), missing)) return;
    const std::vector<int> running = ask_weights(now);
    trained_ = trained_ || !running.empty();
    if (!options_.centre || running.empty()) return set_task(Rebuild{}, Stage::opening, now);
    stage_ = Stage::recalling;
    since_ = now;
    return;
  }
  if (!weights_are_there(since_) && now - since_ < longest_weights) return;
  Rebuild rebuild;
  for (int rank = 0; rank < count(); ++rank) {
    if (member(rank).state == Member::State::running && member(rank).has_weights) rebuild.ranks.push_back(rank);
  }
  set_task(std::move(rebuild), Stage::opening, now);
}

/// Asks those that run, and says who they are.
std::vector<int> CoordinatorMachine::ask_weights(double now) {
  std::vector<int> asked;
  for (int rank = 0; rank < count(); ++rank) {
    Member& is = member(rank);
    if (is.state != Member::State::running || is.silent || is.step < floor_) continue;
    is.has_weights = false;
    is.asked = now;
    send(rank, GiveWeights{});
    asked.push_back(rank);
  }
  return asked;
}

/// Of all that were asked at `since`, or later, and are still there.
bool CoordinatorMachine::weights_are_there(double since) const {
  return std::all_of(members_.begin(), members_.end(), [&](const Member& is) {
    return is.state != Member::State::running || is.silent || is.asked < since || is.has_weights;
  });
}

/// False: not yet, because those whose weights it shall begin with have not sent them.
bool CoordinatorMachine::free_begin_worker(int rank, double now) {
  Member& is = member(rank);
  const bool later = trained_ || is.process.incarnation > 0 || progress() > 0;
  const std::int64_t step = std::min(std::max({is.step, floor_, later ? progress() : 0}), options_.total_steps);
  Begin begin{.segment = the_run, .begin = step, .end = options_.total_steps};
  is.attachment = Attachment::none;
  is.attachment_of = -1;
  if (later && options_.centre) {
    begin.from = Source::centre;
  } else if (later) {
    begin.from = Source::weights;
    const std::optional<int> other = donor(rank);
    if (!other) {
      ask_for(rank, now);
      return false;
    }
    is.attachment = *other >= 0 ? Attachment::weights : Attachment::kept;
    is.attachment_of = *other;
  }
  is.step = step;
  is.state = Member::State::running;
  is.has_weights = false;
  trained_ = trained_ || is.process.incarnation > 0;
  last_news_ = now;
  if (options_.sums) {
    tell_members(free_members());
    begin.version = version_;
    begin.members = replicas_of(free_members());
  }
  is.order = std::move(begin);
  send_order(rank, now);
  return true;
}

/// Whose weights worker `rank` can begin with; -1: nobody runs, those that are kept; nothing: they have to be waited for.
std::optional<int> CoordinatorMachine::donor(int rank) const {
  std::optional<int> found = -1;
  for (int other = 0; other < count(); ++other) {
    const Member& is = member(other);
    if (other == rank || is.state != Member::State::running || is.silent) continue;
    if (is.has_weights && is.weights_at > member(rank).came) return other;
    found.reset();
  }
  return found;
}

/// Asks others what worker `rank` shall begin with.
void CoordinatorMachine::ask_for(int rank, double now) {
  for (int other = 0; other < count(); ++other) {
    Member& is = member(other);
    if (other == rank || is.state != Member::State::running || is.silent || now - is.asked < resend) continue;
    is.asked = now;
    send(other, GiveWeights{});
  }
}

/// Those who average together.
std::vector<int> CoordinatorMachine::free_members() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < count(); ++rank) {
    if (member(rank).state == Member::State::running && !member(rank).silent) ranks.push_back(rank);
  }
  return ranks;
}

/// Of the slowest worker that is at work.
std::int64_t CoordinatorMachine::progress() const {
  std::optional<std::int64_t> least;
  for (const Member& is : members_) {
    if (is.state == Member::State::running && !is.silent) least = std::min(least.value_or(is.step), is.step);
  }
  return least.value_or(floor_);
}

std::int64_t CoordinatorMachine::least_of_finished() const {
  std::optional<std::int64_t> least;
  for (const Member& is : members_) {
    if (is.state == Member::State::finished) least = std::min(least.value_or(is.step), is.step);
  }
  return least.value_or(floor_);
}

bool CoordinatorMachine::free_over(double now) {
  bool any_finished = false;
  const double waited = now - last_news_;
  for (const Member& is : members_) {
    if (is.state == Member::State::finished) {
      any_finished = true;
      continue;
    }
    if (is.present() && !is.silent) return false;
    if (waited <= options_.patience && !(is.gone && waited > words_of_the_dead)) return false;
  }
  if (!any_finished && !stop_wanted_) fail(exit_data, "no worker is left, and none has come back");
  return true;
}

void CoordinatorMachine::free_halt(double now) {
  if (halt_ && now - halted_ < resend) return;
  halt_ = Halt{.how = HaltHow::stop, .term = term_, .segment = the_run};
  halted_ = now;
  for (int rank = 0; rank < count(); ++rank) {
    if (member(rank).state == Member::State::running) send(rank, *halt_);
  }
}

void CoordinatorMachine::free_end(double now) {
  const bool over = free_over(now);
  if (failure_) return;
  std::int64_t reached = std::min(over ? least_of_finished() : progress(), options_.total_steps);
  if (over && !stop_wanted_) reached = options_.total_steps;
  SegmentEnded ended{.position = std::max(reached, stop_wanted_ ? begin_ : end_), .stopped = stop_wanted_};
  for (int rank = 0; rank < count(); ++rank) {
    if (member(rank).has_weights) ended.kept.push_back(rank);
  }
  set_task(std::move(ended), Stage::ended, now);
}

}  // namespace rubato::membership
