#include "rubato/membership/worker_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "membership/overloaded.h"

namespace rubato::membership {
Status WorkerMachine::status(std::int64_t step) {
  if (busy_) step_ = std::max(step_, step);
  return {++serial_, options_.process, phase_, term_, segment_, step_, holds_, stop_wanted_, version_};
}

void WorkerMachine::say_status() {
  actions_.push_back(Report{status(step_), false});
}

void WorkerMachine::received(const Message& message, double) {
  if (!coordinator_) return;  // it is meant for a process that had this rank before
  std::visit(Overloaded{
                 [&](const Begin& is) { begin(is); },
                 [&](const Abort& is) { abort(is); },
                 [&](const Halt& is) { halt(is); },
                 [&](const Leave& is) { leave(is); },
                 [&](const Members& is) {
                   if (is.version <= version_) return;
                   version_ = is.version;
                   members_ = is;
                   actions_.push_back(SetMembers{is});
                 },
                 [&](const SayAgain&) { say_again(); },
                 [&](const auto&) { actions_.push_back(Answer{message}); },
             },
             message);
}

void WorkerMachine::begin(const Begin& begin) {
  const bool newer = std::pair(begin.term, begin.segment) > std::pair(term_, segment_);
  if (!newer || exit_ || phase_ == Phase::failed) return;
  interrupted_ = busy_ && interrupted_;
  if (busy_) interrupt();  // what an earlier coordinator has ordered
  if (begin.term > term_ || forget_ || busy_) forget_ = Abort{begin.term, begin.segment};
  term_ = begin.term;
  segment_ = begin.segment;
  version_ = std::max(version_, begin.version);
  step_ = begin.begin;
  phase_ = Phase::running;
  opened_ = holds_ = false;
  halt_.reset();
  report_.reset();
  next_ = begin;
  say_status();
  settle();
}

void WorkerMachine::interrupt() {
  if (!std::exchange(interrupted_, true)) actions_.push_back(Interrupt{});
}

void WorkerMachine::abort(const Abort& abort) {
  const bool older = abort.term < term_ || (abort.term == term_ && abort.segment < segment_);
  if (older || exit_) return;
  if (abort.term == term_ && phase_ == Phase::idle) return say_status();  // done
  forget_ = abort;
  next_.reset();
  if (busy_) {
    interrupt();
  } else {
    settle();
  }
}

/// Nothing runs: what was to be done then.
void WorkerMachine::settle() {
  if (busy_) return;
  if (exit_) {
    task_ = *exit_;
  } else if (forget_) {
    task_ = ForgetTerm{forget_->term};
  } else if (next_) {
    task_ = RunSegment{*next_};
  }
}

void WorkerMachine::task_taken() {
  const WorkerTask taken = std::exchange(task_, {});
  if (const auto* forgotten = std::get_if<ForgetTerm>(&taken)) {
    const bool aborted = !next_;
    if (aborted && forget_->term > term_) segment_ = forget_->segment;
    term_ = std::max(term_, forgotten->term);
    if (forget_->term == forgotten->term) forget_.reset();
    if (aborted) {
      phase_ = Phase::idle;
      holds_ = false;
      report_.reset();
      say_status();
    }
    settle();
  } else if (std::holds_alternative<RunSegment>(taken)) {
    busy_ = true;
    if (members_ && members_->version > next_->version) actions_.push_back(SetMembers{*members_});  // they came before it
    next_.reset();
  }
}

void WorkerMachine::halt(const Halt& halt) {
  if (phase_ != Phase::running || halt.term != term_ || halt.segment != segment_) return;
  if (halt_ && halt_->how == HaltHow::end_at) return;  // the last word
  halt_ = halt;
  if (opened_) actions_.push_back(HaltSource{halt.how, halt.step});
}

/// Opening a source forgets what it was told before.
void WorkerMachine::opened() {
  if (interrupted_) return;
  opened_ = true;
  if (halt_) actions_.push_back(HaltSource{halt_->how, halt_->step});
}

void WorkerMachine::holding(std::int64_t step) {
  if (!busy_ || interrupted_ || !halt_ || halt_->how != HaltHow::hold) return;
  holds_ = true;
  step_ = std::max(step_, step);
  say_status();
}

void WorkerMachine::segment_ended(std::int64_t position, const std::string& digest) {
  if (interrupted_) return segment_interrupted();
  busy_ = holds_ = false;
  step_ = position;
  phase_ = Phase::finished;
  report_ = Finished{options_.process, term_, segment_, position, digest};
  say_again();
  say_status();
  settle();
}

void WorkerMachine::segment_interrupted() {
  busy_ = holds_ = interrupted_ = false;
  if (!next_) phase_ = Phase::idle;
  if (!forget_) forget_ = Abort{term_, segment_};  // what was on its way in it shall not come to the next
  settle();
}

void WorkerMachine::segment_failed(int code, const std::string& sentence) {
  if (interrupted_) return segment_interrupted();
  busy_ = holds_ = false;
  phase_ = Phase::failed;
  report_ = Failed{options_.process, code, sentence};
  say_again();
  say_status();
  settle();
}

void WorkerMachine::say_again() {
  if (report_) actions_.push_back(Report{*report_, std::holds_alternative<Finished>(*report_)});
}

void WorkerMachine::leave(const Leave& leave) {
  if (!exit_ || !exit_->told) exit_ = Exit{leave.code, leave.why, true, false};
  phase_ = Phase::leaving;
  actions_.push_back(Report{Left{options_.process}, false});
  if (busy_) interrupt();
  settle();
}

void WorkerMachine::welcomed(const ProcessId& coordinator, double) {
  const bool first = !coordinator_;
  silent_since_.reset();
  if (coordinator_ == coordinator) return;
  coordinator_ = coordinator;
  actions_.push_back(NewCoordinator{first});
  if (!first && options_.policy == Policy::free) actions_.push_back(SetAway{true});  // what it was asked is lost
  if (phase_ == Phase::finished || phase_ == Phase::failed) say_again();
  say_status();
}

void WorkerMachine::turned_away(const std::string& reason) {
  if (exit_) return;
  exit_ = Exit{exit_usage, "the job's coordinator turns this process away: " + reason};
  if (busy_) interrupt();
  settle();
}

void WorkerMachine::silent(bool is_silent, double now) {
  if (is_silent == silent_since_.has_value()) return;
  if (is_silent) {
    silent_since_ = now;
  } else {
    silent_since_.reset();
  }
  if (options_.policy == Policy::free) actions_.push_back(SetAway{is_silent});
}

void WorkerMachine::coordinator_ended(int code) {
  if (exit_) return;
  exit_ = Exit{code, "", true};
  phase_ = Phase::leaving;
  if (busy_) interrupt();
  settle();
}

void WorkerMachine::tick(double now) {
  if (exit_) return;
  if (stop_wanted_ && !stop_since_) stop_since_ = now;
  if (!coordinator_) {
    if (unheard(now)) {
      exit_ = Exit{exit_interrupted, ""};
    } else if (now - since_ > options_.patience) {
      exit_ = Exit{exit_data, fmt::format("nobody answers after {:g} s", options_.patience)};
    }
  } else if (alone(now) || (silent_since_ && unheard(now))) {
    const bool can_go_on = options_.policy == Policy::free && !options_.sums;
    if (busy_ && can_go_on && !stop_wanted_) return;
    exit_ = Exit{stop_wanted_ ? exit_interrupted : exit_data,
                 stop_wanted_ ? "asked to stop while the coordinator was silent"
                              : fmt::format("the coordinator has been silent for {:g} s", options_.patience),
                 false, true};
    // Nobody will ever say that a neighbour is gone.
    if (busy_) interrupt();
  }
  if (exit_) settle();
}

}  // namespace rubato::membership
