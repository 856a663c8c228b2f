#include "rubato/membership/coordinator_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "membership/overloaded.h"

namespace rubato::membership {
CoordinatorMachine::CoordinatorMachine(const GroupOptions& options)
    : options_(options), members_(static_cast<std::size_t>(options.workers)), trained_(options.trained_before) {
  // Later coordinators of a job have higher terms and versions than earlier ones.
  if (options.policy == Policy::fixed) term_ = std::int64_t{options.incarnation} << 32;
  version_ = std::int64_t{options.incarnation} << 32;
}

void CoordinatorMachine::remember(std::int64_t deaths, std::int64_t joins, const std::vector<ProcessId>& processes) {
  deaths_ = deaths;
  joins_ = joins;
  for (std::size_t rank = 0; rank < std::min(processes.size(), members_.size()); ++rank) {
    members_[rank].process = processes[rank];
  }
}

void CoordinatorMachine::send(int rank, Message message, Attachment attachment, int of) {
  actions_.push_back(Send{rank, std::move(message), attachment, of});
}

void CoordinatorMachine::set_task(Task task, Stage stage, double now) {
  task_ = std::move(task);
  stage_ = stage;
  since_ = now;
}

std::string CoordinatorMachine::hello(int rank, const ProcessId& process, const std::string& endpoint, const Status& status,
                                      double now) {
  if (rank < 0 || rank >= count()) return fmt::format("there is no worker {} in a job of {}", rank, count());
  Member& is = member(rank);
  const bool same = is.process == process;
  if (!same && is.process.incarnation > process.incarnation) return "this worker has been started again since";
  if (!same) new_process(rank, process, now);
  is.endpoint = endpoint;
  is.heard = now;
  const bool back = !is.present() && !is.gone, heard_again = std::exchange(is.silent, false);
  if (back) is.state = status.phase == Phase::idle ? Member::State::idle : Member::State::running;
  status_came(rank, status, now);
  if (end_of_job_) {
    send(rank, *end_of_job_);
  } else if (back || heard_again) {
    came(rank, now);
  }
  return "";
}

void CoordinatorMachine::new_process(int rank, const ProcessId& process, double now) {
  Member& is = member(rank);
  const bool known = is.process.id != 0;
  if (is.present()) {
    mark_dead(rank, now);
  } else if (is.state == Member::State::missing && known) {
    ++deaths_;  // an earlier coordinator knew the one before it
  }
  if (process.incarnation > 0 || is.state == Member::State::dead) ++joins_;
  const std::int64_t step = is.step;
  is = Member{.process = process, .step = step, .heard = now, .came = now};
  actions_.push_back(Expect{rank});
}

void CoordinatorMachine::received(int rank, const Message& message, double now) {
  if (rank < 0 || rank >= count()) return;
  std::visit(Overloaded{
                 [&](const Status& status) { status_came(rank, status, now); },
                 [&](const Finished& finished) { finished_came(rank, finished, now); },
                 [&](const Weights& weights) { weights_came(rank, weights, now); },
                 [&](const Failed& failed) {
                   if (failed.process == member(rank).process) fail(failed.code, failed.sentence);
                 },
                 [&](const Left& left) {
                   if (left.process == member(rank).process) member(rank).left = true;
                 },
                 [&](const Broken& broken) { this->broken(rank, broken.version); }, [&](const Put& put) { this->put(put); },
                 [&](const Look& look) { this->look(rank, look); }, [&](const SumAsked& asked) { relay_question(rank, asked); },
                 [&](const SumAnswered& answered) { relay_answer(rank, answered); }, [](const auto&) {},  // orders
             },
             message);
}

void CoordinatorMachine::status_came(int rank, const Status& status, double now) {
  Member& is = member(rank);
  if (status.process != is.process || status.serial <= is.serial || is.gone) return;
  is.serial = status.serial;
  is.heard = now;
  if (status.phase != is.phase) is.ordered = now;  // a report may be on its way, too
  is.phase = status.phase;
  is.term = status.term;
  is.segment = status.segment;
  if (status.phase != Phase::idle) is.step = status.step;
  if (status.stop_wanted) stop(now);
  if (status.phase == Phase::leaving) is.left = true;
  if (!is.present()) {  // it was taken for dead
    is.state = status.phase == Phase::idle ? Member::State::idle : Member::State::running;
    came(rank, now);
  }
  reconcile(rank, status, now);
}

/// Whether an order to it may be sent again.
bool CoordinatorMachine::due(Member& member, double now) const {
  if (now - member.ordered < resend) return false;
  member.ordered = now;
  return true;
}

/// Compares what a worker does with what it was told.
void CoordinatorMachine::reconcile(int rank, const Status& status, double now) {
  Member& is = member(rank);
  const bool of_order =
      !is.order || (status.term == is.order->term && status.segment == is.order->segment) || options_.policy == Policy::free;
  is.holds = status.holds && of_order && status.phase == Phase::running;
  const bool behind = is.order && std::pair(is.term, is.segment) < std::pair(is.order->term, is.order->segment);
  if (behind && !is.abort && is.state == Member::State::running && status.phase != Phase::leaving) {
    if (due(is, now)) send_order(rank, now);  // it has not come
    return;
  }
  switch (status.phase) {
    case Phase::idle:
      return reconcile_idle(rank, now);
    case Phase::running:
      if (is.state == Member::State::idle) runs_already(rank, now);
      if (!is.abort) members_again(rank, status.version, now);
      break;
    case Phase::finished:
    case Phase::failed:
      if (is.state == Member::State::idle) runs_already(rank, now);
      if (!is.abort && of_order && is.state == Member::State::running && due(is, now)) send(rank, SayAgain{});
      break;
    case Phase::leaving:
      return;
  }
  if (is.abort && due(is, now)) send(rank, *is.abort);
}

/// What an earlier coordinator has ordered.
void CoordinatorMachine::runs_already(int rank, double now) {
  member(rank).state = Member::State::running;
  if (options_.policy == Policy::free) came(rank, now);
}

void CoordinatorMachine::reconcile_idle(int rank, double now) {
  Member& is = member(rank);
  if (is.state != Member::State::running) return;
  if (is.abort) {
    if (std::pair(is.term, is.segment) < std::pair(is.abort->term, std::int64_t{0})) {
      if (due(is, now)) send(rank, *is.abort);
      return;
    }
    is.abort.reset();
    is.state = Member::State::idle;
  } else if (!is.order) {
    is.state = Member::State::idle;
  } else {  // it has given up by itself
    is.state = Member::State::idle;
    lost(rank, now);
  }
}

void CoordinatorMachine::send_order(int rank, double now) {
  Member& is = member(rank);
  is.ordered = now;
  send(rank, *is.order, is.attachment, is.attachment_of);
}

void CoordinatorMachine::finished_came(int rank, const Finished& finished, double now) {
  Member& is = member(rank);
  if (finished.process != is.process || is.state != Member::State::running || is.abort) return;
  const bool as_ordered = is.order && is.order->term == finished.term && is.order->segment == finished.segment;
  if (options_.policy == Policy::fixed && (!as_ordered || !takes_part(is))) return;
  is.state = Member::State::finished;
  is.delivered = finished.segment;
  is.position = is.step = finished.position;
  is.digest = finished.digest;
  is.heard = now;
  if (options_.policy == Policy::free) {
    is.has_weights = !options_.centre;
    is.weights_at = now;
    last_news_ = now;
  }
  actions_.push_back(Keep{rank});
  if (options_.policy == Policy::free) tell_members(free_members());
}

void CoordinatorMachine::weights_came(int rank, const Weights& weights, double now) {
  Member& is = member(rank);
  if (weights.process != is.process || !is.present()) return;
  is.has_weights = true;
  is.weights_at = now;
  is.step = std::max(is.step, weights.step);
  actions_.push_back(Keep{rank});
}

void CoordinatorMachine::silent(int rank, bool is_silent, double now) {
  if (rank < 0 || rank >= count() || member(rank).silent == is_silent) return;
  member(rank).silent = is_silent;
  if (is_silent) {
    if (member(rank).present()) lost(rank, now);
  } else {
    came(rank, now);
  }
}

void CoordinatorMachine::turned_away(int rank, const std::string& reason, double now) {
  if (rank < 0 || rank >= count() || member(rank).wrong_since) return;
  member(rank).wrong_since = now;
  member(rank).wrong = reason;
}

void CoordinatorMachine::gone(int rank, int incarnation, double now) {
  if (rank < 0 || rank >= count() || member(rank).process.incarnation > incarnation) return;
  if (!std::exchange(member(rank).gone, true) && member(rank).present()) look_for_the_dead(now);
}

/// What a process has sent before its end may still be on its way.
void CoordinatorMachine::look_for_the_dead(double now) {
  for (int rank = 0; rank < count(); ++rank) {
    const Member& is = member(rank);
    const bool quiet = is.silent || now - is.heard > std::min(options_.silence, words_of_the_dead);
    if (is.gone && quiet && is.present()) mark_dead(rank, now);
  }
}

void CoordinatorMachine::mark_dead(int rank, double now) {
  Member& is = member(rank);
  ++deaths_;
  is.state = Member::State::dead;
  is.died = now;
  is.synced = is.has_weights = is.holds = false;
  is.abort.reset();
  actions_.push_back(Lost{rank});
  lost(rank, now);
}

/// A worker is there (again): new, or after a silence.
void CoordinatorMachine::came(int rank, double now) {
  if (options_.policy == Policy::free) {
    last_news_ = now;
    return tell_members(free_members());
  }
  // One that was taken for dead gives up what it was at, and takes part in the next segment.
  Member& is = member(rank);
  if (is.state == Member::State::dead && !is.gone) is.state = Member::State::running;
  if (is.state == Member::State::running && !is.order && !is.abort) give_up(rank, now);
}

void CoordinatorMachine::give_up(int rank, double now) {
  Member& is = member(rank);
  is.state = Member::State::running;
  is.synced = false;
  is.order.reset();
  is.abort = Abort{term_, segment_};
  is.ordered = now;
  meet_anew_ = true;  // it forgets the sums of this version
  send(rank, *is.abort);
}

void CoordinatorMachine::lost(int rank, double now) {
  if (options_.policy == Policy::fixed) return fixed_lost(rank, now);
  last_news_ = now;
  if (!member(rank).present()) member(rank).order.reset();
  tell_members(free_members());
}

void CoordinatorMachine::broken(int rank, std::int64_t version) {
  if (version > version_ || !options_.sums) return;
  const std::vector<int> ranks = options_.policy == Policy::free ? free_members() : taking_part();
  if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) return;
  if (version < version_) return send(rank, Members{version_, replicas_of(ranks)});
  meet_anew_ = true;
  if (options_.policy == Policy::free || options_.when_worker_dies == WhenWorkerDies::proceed) {
    tell_members(ranks);
  } else if (stage_ == Stage::running) {
    go_back(member(rank).heard);
  }
}

void CoordinatorMachine::meet(const std::vector<int>& ranks) {
  std::vector<std::pair<std::int64_t, ProcessId>> processes;
  for (const int rank : ranks) processes.emplace_back(rank, member(rank).process);
  if (!std::exchange(meet_anew_, false) && met_ == processes) return;
  met_ = std::move(processes);
  ++version_;
  board_.clear();
}

/// Those who sum together are these from now on.
void CoordinatorMachine::tell_members(const std::vector<int>& ranks) {
  if (!options_.sums || ranks.empty()) return;
  const std::int64_t before = version_;
  meet(ranks);
  if (version_ == before) return;
  for (const int rank : ranks) send(rank, Members{version_, replicas_of(ranks)});
}

std::vector<std::int64_t> CoordinatorMachine::replicas_of(const std::vector<int>& ranks) const {
  std::vector<std::int64_t> replicas;
  for (const int rank : ranks) replicas.push_back(rank / options_.parts);
  std::sort(replicas.begin(), replicas.end());
  replicas.erase(std::unique(replicas.begin(), replicas.end()), replicas.end());
  return replicas;
}

/// A member that does not know the others of its version may wait for ever for those that have left.
void CoordinatorMachine::members_again(int rank, std::int64_t version, double now) {
  if (version >= version_ || !options_.sums) return;
  std::vector<int> ranks;
  for (const auto& [met, process] : met_) ranks.push_back(static_cast<int>(met));
  if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end() || !due(member(rank), now)) return;
  send(rank, Members{version_, replicas_of(ranks)});
}

void CoordinatorMachine::relay_question(int rank, const SumAsked& asked) {
  for (int other = 0; other < count(); ++other) {
    if (other != rank && member(other).present()) send(other, SumAsked{rank, asked.sum});
  }
}

void CoordinatorMachine::relay_answer(int rank, const SumAnswered& answered) {
  if (answered.member < 0 || answered.member >= count()) return;
  SumAnswered passed = answered;
  passed.member = rank;
  // Its tensors are the content of the message that is being handled.
  actions_.push_back(Send{static_cast<int>(answered.member), std::move(passed), Attachment::same, -1});
}

void CoordinatorMachine::put(const Put& put) {
  for (const int rank : board_.put(put.key, put.value)) send(rank, Found{put.key, put.value});
}

void CoordinatorMachine::look(int rank, const Look& look) {
  if (auto value = board_.ask(rank, look.key)) send(rank, Found{look.key, *value});
}

void CoordinatorMachine::run_segment(std::int64_t begin, std::int64_t end, double now) {
  begin_ = begin;
  end_ = end;
  if (options_.policy == Policy::fixed) {
    set_task({}, Stage::gathering, now);
  } else if (started_) {
    set_task({}, Stage::running, now);
  } else {
    started_ = true;
    floor_ = begin;
    last_news_ = now;
    trained_ = trained_ || begin > 0;
    if (options_.incarnation > 0) {
      set_task({}, Stage::returning, now);
    } else {
      set_task(Rebuild{}, Stage::opening, now);
    }
  }
}

void CoordinatorMachine::stop(double) {
  stop_wanted_ = true;
}

void CoordinatorMachine::fail(int code, const std::string& sentence) {
  if (!failure_ && !end_of_job_) failure_ = GroupFailed{code, sentence};
}

void CoordinatorMachine::task_done(double now) {
  const Task done = std::exchange(task_, {});
  if (std::holds_alternative<OpenSegment>(done)) return order_segment(now);
  if (std::holds_alternative<GoBack>(done)) return set_task({}, Stage::gathering, now);
  if (std::holds_alternative<Rebuild>(done)) return set_task({}, Stage::running, now);
  stage_ = stage_ == Stage::leaving ? Stage::leaving : Stage::resting;
}

void CoordinatorMachine::tick(double now) {
  look_for_the_dead(now);
  if (stage_ == Stage::leaving) return leave_tick(now);
  if (failure_ && stage_ != Stage::opening && stage_ != Stage::ended) return set_task(*failure_, Stage::ended, now);
  if (options_.policy == Policy::free) {
    free_tick(now);
  } else {
    fixed_tick(now);
  }
  if (failure_ && stage_ != Stage::opening && stage_ != Stage::ended) set_task(*failure_, Stage::ended, now);
}

void CoordinatorMachine::job_over(int code, const std::string& why, bool others_come, double now) {
  end_of_job_ = Leave{code, why};
  others_come_ = others_come;
  set_task({}, Stage::leaving, now);
  told_ = now - 2 * say_end_every;
  leave_tick(now);
}

/// Until all that are there have said that they leave. Who is silent, or still on its way, has a moment to come.
void CoordinatorMachine::leave_tick(double now) {
  if (task_.index() != 0) return;
  const double waited = now - since_;
  const auto waited_for = [&](const Member& is) {
    if (is.left || is.gone || is.state == Member::State::dead) return false;
    if (is.state == Member::State::missing) return others_come_ && waited < longest_welcome;
    return !is.silent || waited < longest_welcome;
  };
  if (waited >= longest_farewell || std::none_of(members_.begin(), members_.end(), waited_for)) {
    task_ = AllTold{};
    return;
  }
  tell_end(now);
}

void CoordinatorMachine::tell_end(double now) {
  if (now - told_ < say_end_every) return;
  told_ = now;
  for (int rank = 0; rank < count(); ++rank) {
    if (!member(rank).left) send(rank, *end_of_job_);
  }
}

bool CoordinatorMachine::still_wanted(const Send& send) const {
  const auto* begin = std::get_if<Begin>(&send.message);
  if (begin == nullptr) return true;
  const Member& is = member(send.rank);
  return is.state == Member::State::running && !is.abort && is.order == *begin;
}

}  // namespace rubato::membership
