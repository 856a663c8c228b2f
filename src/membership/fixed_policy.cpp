#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "rubato/membership/coordinator_machine.h"

// Workers that wait for each other: they run segment by segment, and the coordinator keeps the state of every replica in between,
// so that all can go back to it when one dies.

namespace rubato::membership {
namespace {

constexpr double moment = 1;  ///< seconds that others are waited for where the group can go on without them

}  // namespace

bool CoordinatorMachine::takes_part(const Member& member) const {
  return member.order && member.order->term == term_ && member.order->segment == segment_;
}

bool CoordinatorMachine::is_ready(const Member& member) const {
  return !member.silent && (member.state == Member::State::idle || member.state == Member::State::finished);
}

std::vector<int> CoordinatorMachine::taking_part() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < count(); ++rank) {
    if (takes_part(member(rank))) ranks.push_back(rank);
  }
  return ranks;
}

void CoordinatorMachine::fixed_tick(double now) {
  if (stage_ == Stage::gathering) return gather(now);
  if (stage_ == Stage::running) fixed_running(now);
}

void CoordinatorMachine::gather(double now) {
  if (stop_wanted_) return set_task(SegmentEnded{.position = begin_, .stopped = true}, Stage::ended, now);
  for (int rank = 0; rank < count(); ++rank) {
    // One that still runs was told so by an earlier coordinator.
    if (member(rank).state == Member::State::running && !member(rank).abort) give_up(rank, now);
  }
  const auto there = std::count_if(members_.begin(), members_.end(), [&](const Member& is) { return is_ready(is); });
  const double waited = now - since_;
  const auto lost = std::count_if(members_.begin(), members_.end(), [&](const Member& is) { return is.gone && !is_ready(is); });
  const bool enough = options_.when_worker_dies == WhenWorkerDies::proceed && segment_ > 0 && there > 0 &&
                      (waited > moment || there + lost == count());
  if (there == count() || enough) {
    if (std::exchange(place_empty_, false)) return go_back(now);
    ++segment_;
    halt_.reset();
    return set_task(OpenSegment{segment_, begin_, end_}, Stage::opening, now);
  }
  for (int rank = 0; rank < count() && segment_ == 0; ++rank) {
    const Member& is = member(rank);
    if (is.state != Member::State::missing || !is.wrong_since || now - *is.wrong_since <= longest_doubt) continue;
    return fail(exit_usage, fmt::format("worker {} has {}", rank, is.wrong));
  }
  if (waited <= options_.patience) return;
  fail(exit_data, fmt::format("{} of {} workers are there after {:g} s (--patience): start the others, or fewer with --resume",
                              there, count(), options_.patience));
}

/// The sources are open and the centre runs.
void CoordinatorMachine::order_segment(double now) {
  std::vector<int> ranks;
  for (int rank = 0; rank < count(); ++rank) {
    if (is_ready(member(rank))) ranks.push_back(rank);
  }
  const bool proceeds = options_.when_worker_dies == WhenWorkerDies::proceed;
  if (ranks.empty() || (!proceeds && static_cast<int>(ranks.size()) < count()) || place_empty_) return go_back(now);
  Begin common{.term = term_, .segment = segment_, .begin = begin_, .end = end_};
  if (options_.sums) {
    meet(ranks);
    common.version = version_;
    common.members = replicas_of(ranks);
  }
  for (int rank = 0; rank < count(); ++rank) {
    if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) actions_.push_back(Farewell{rank});
  }
  for (const int rank : ranks) {
    Member& is = member(rank);
    is.order = order_of(rank, common);
    is.attachment = is.order->from == Source::part ? Attachment::part : Attachment::none;
    is.synced = is.started = true;
    is.holds = false;
    is.delivered = -1;
    is.state = Member::State::running;
    send_order(rank, now);
  }
  set_task({}, Stage::running, now);
}

Begin CoordinatorMachine::order_of(int rank, const Begin& common) const {
  Begin mine = common;
  const Member& is = member(rank);
  const bool pristine = begin_ == 0 && !options_.trained_before && !is.started;
  if (!is.synced && !pristine) mine.from = Source::part;
  if (options_.parts == 1 && !options_.sums) return mine;
  for (int other = 0; other < count(); ++other) {
    const bool is_one = is_ready(member(other)) || takes_part(member(other));  // has been given its order already
    if (other != rank && is_one) mine.neighbours.push_back({other, member(other).endpoint});
  }
  return mine;
}

void CoordinatorMachine::fixed_running(double now) {
  if (stop_wanted_) order_halt(now);
  SegmentEnded ended{.position = begin_, .stopped = stop_wanted_};
  for (int rank = 0; rank < count(); ++rank) {
    const Member& is = member(rank);
    if (!takes_part(is)) {
      ended.absent.push_back(rank);
    } else if (is.delivered != segment_) {
      return;
    } else {
      ended.kept.push_back(rank);
      ended.position = std::max(ended.position, is.position);
    }
  }
  for (const int rank : ended.absent) member(rank).synced = false;
  set_task(std::move(ended), Stage::ended, now);
}

/// A worker that was to run this segment is dead, silent, or has given up: the others finish without it, or go back.
void CoordinatorMachine::fixed_lost(int rank, double now) {
  Member& is = member(rank);
  // Who has ended the segment has done its part, unless others lack a sum that only it has.
  const bool done = is.delivered == segment_ && options_.parts == 1 && !options_.sums;
  if (stage_ != Stage::running || !takes_part(is) || done) {
    // Stages wait for room that nobody will ever make: they begin anew, from what is kept.
    place_empty_ = place_empty_ || (options_.parts > 1 && segment_ > 0);
    return;
  }
  if (options_.when_worker_dies == WhenWorkerDies::stop) {
    return fail(exit_data, fmt::format("worker {} has died; --when-worker-dies stop: continue with --resume", rank));
  }
  is.order.reset();
  is.synced = false;
  const std::vector<int> left = taking_part();
  if (options_.when_worker_dies != WhenWorkerDies::proceed || left.empty()) return go_back(now);
  if (is.present() && is.silent) is.state = Member::State::dead;
  if (options_.sums) {
    tell_members(left);
  } else {
    actions_.push_back(Farewell{rank});
  }
}

void CoordinatorMachine::go_back(double now) {
  actions_.push_back(Note{"a worker is gone: all go back to the last checkpoint and wait for it"});
  ++term_;
  place_empty_ = false;
  meet_anew_ = true;
  for (int rank = 0; rank < count(); ++rank) {
    Member& is = member(rank);
    is.order.reset();
    is.delivered = -1;
    is.synced = is.holds = false;
    if (is.present()) give_up(rank, now);
  }
  set_task(GoBack{term_}, Stage::opening, now);
}

/// All take no more batches and say where they are; then all go on up to the furthest.
void CoordinatorMachine::order_halt(double now) {
  const std::vector<int> ranks = taking_part();
  if (!halt_) {
    halt_ = Halt{.how = HaltHow::hold, .term = term_, .segment = segment_};
    since_ = now;
    halted_ = now - 2 * resend;
  }
  const auto waits = [&](int rank) { return !member(rank).holds && member(rank).delivered != segment_; };
  const bool all_hold = std::none_of(ranks.begin(), ranks.end(), waits);
  if (halt_->how == HaltHow::hold && (all_hold || now - since_ > options_.patience)) {
    halt_->how = HaltHow::end_at;
    halted_ = now - 2 * resend;
    halt_->step = begin_;
    for (const int rank : ranks) {
      const Member& is = member(rank);
      halt_->step = std::max(halt_->step, is.delivered == segment_ ? is.position : is.step);
    }
  }
  if (now - halted_ < resend) return;
  halted_ = now;
  for (const int rank : ranks) {
    if (member(rank).delivered != segment_) send(rank, *halt_);
  }
}

}  // namespace rubato::membership
