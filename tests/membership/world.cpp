#include "membership/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace membership_world {
namespace {

constexpr double last_fault = 10;  ///< the network is sound from then on
constexpr double beat_every = 0.3, tick_every = 0.15, silence = 1.0, forever = 1e9;
constexpr int no_exit = -1, killed_exit = -9;

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  a ^= b + 0x9E3779B97F4A7C15ULL + (a << 6) + (a >> 2);
  return a * 0xBF58476D1CE4E5B9ULL;
}

/// A version as the slot of an event: its coordinator's incarnation and what that has counted.
std::int32_t slot_of(std::int64_t version) {
  return static_cast<std::int32_t>((version >> 32) << 20 | (version & 0xFFFFF));
}

}  // namespace

Plan plan_of(std::uint64_t seed) {
  Random random(seed);
  Plan plan{.seed = seed};
  GroupOptions& group = plan.group;
  group.workers = 1 + random.below(4);
  group.policy = random.chance(0.4) ? Policy::free : Policy::fixed;
  if (group.policy == Policy::free) {
    group.centre = random.chance(0.5);
    group.sums = !group.centre;
  } else {
    const int form = random.below(3);
    if (form == 0 && group.workers > 1) group.parts = group.workers;
    group.sums = form == 1;
    group.centre = form == 2;
    static constexpr WhenWorkerDies all[] = {WhenWorkerDies::proceed, WhenWorkerDies::wait, WhenWorkerDies::stop};
    group.when_worker_dies = all[group.parts > 1 ? 1 : random.below(10) < 5 ? 0 : random.below(10) < 8 ? 1 : 2];
  }
  group.patience = 6;
  group.silence = silence;
  group.total_steps = 4 + random.below(12);
  plan.segment_steps = 2 + random.below(5);
  plan.restarts = random.below(4);
  if (random.chance(0.6)) {
    plan.loss = random.chance(0.5) ? random.between(0, 0.15) : 0;
    plan.doubling = random.chance(0.5) ? random.between(0, 0.2) : 0;
  }
  plan.slowest = random.chance(0.5) ? 0.005 : random.between(0.005, 0.25);
  const int count = random.below(5);
  for (int i = 0; i < count; ++i) {
    static constexpr Fault common[] = {Fault::kill_worker, Fault::kill_worker, Fault::kill_worker,      Fault::stop_worker,
                                       Fault::cut_link,    Fault::cut_link,    Fault::kill_coordinator, Fault::signal_worker};
    const Fault fault = random.chance(0.8) ? common[random.below(8)] : static_cast<Fault>(random.below(faults));
    plan.faults.emplace_back(random.between(0, 5), fault);
  }
  std::sort(plan.faults.begin(), plan.faults.end());
  const bool signal_alone = plan.faults.size() == 1 && plan.faults.front().second == Fault::signal_worker;
  if (signal_alone) plan.group.total_steps += 60;  // it does not end by itself meanwhile
  return plan;
}

World::World(const Plan& plan) : plan_(plan), random_(plan.seed ^ 0xABCDEF) {
  const auto count = static_cast<std::size_t>(plan.group.workers);
  workers_.resize(count);
  restarts_.assign(count + 1, plan.restarts);
  saved_.resize(count);
  for (int rank = 0; rank < plan.group.workers; ++rank) {
    worker(rank).pace = random_.between(0.05, 0.4);
    at(random_.between(0, 0.3), Kind::start_worker, rank, 0);
  }
  at(random_.between(0, 0.3), Kind::start_coordinator, -1, 0);
  for (const auto& [when, fault] : plan.faults) at(when, Kind::fault, static_cast<int>(fault), 0);
}

void World::at(double when, Kind kind, int who, std::uint32_t life, std::int32_t slot) {
  events_.push({when, order_++, kind, static_cast<std::int16_t>(who), slot, life});
}

std::int32_t World::keep(Envelope envelope) {
  if (plan_.seed % 8 == 0) envelope.message = decode(encode(envelope.message));
  if (free_.empty()) {
    pool_.push_back(std::move(envelope));
    return static_cast<std::int32_t>(pool_.size()) - 1;
  }
  const std::int32_t slot = free_.back();
  free_.pop_back();
  pool_[static_cast<std::size_t>(slot)] = std::move(envelope);
  return slot;
}

/// Over the network: it may be lost, come twice, and overtake others. `who`: the worker at one end.
void World::mail(Kind kind, int who, std::uint32_t life, std::int32_t slot) {
  const bool unsound = now_ < last_fault;
  const bool lost = !reachable(who) || (unsound && random_.chance(plan_.loss));
  if (!lost) at(now_ + random_.between(0.0005, plan_.slowest), kind, who, life, slot);
  if (!lost && unsound && random_.chance(plan_.doubling)) {
    const std::int32_t again = slot < 0 ? slot : keep(pool_[static_cast<std::size_t>(slot)]);
    at(now_ + random_.between(0.0005, 3 * plan_.slowest), kind, who, life, again);
  }
  if (lost && slot >= 0) free_.push_back(slot);
}

std::string World::run() {
  constexpr double longest = 90;
  while (!events_.empty() && wrong_.empty()) {
    const Event event = events_.top();
    events_.pop();
    now_ = event.at;
    if (over()) break;
    if (now_ > longest) {
      wrong("somebody waits for ever");
      break;
    }
    handle(event);
    if (event.slot >= 0 && (event.kind == Kind::to_worker || event.kind == Kind::to_coordinator || event.kind == Kind::hello)) {
      free_.push_back(event.slot);
    }
  }
  return wrong_.empty() ? verdict() : wrong_;
}

void World::handle(const Event& event) {
  const int rank = event.who;
  switch (event.kind) {
    case Kind::fault:
      return strike(static_cast<Fault>(rank));
    case Kind::start_worker:
      return start_worker(rank);
    case Kind::start_coordinator:
      return start_coordinator();
    case Kind::told_gone:
      if (event.life == coordinator_.life && coordinator_.alive) {
        coordinator_.machine->gone(rank, event.slot, now_);
        coordinator_acts();
      }
      return;
    case Kind::to_coordinator:
    case Kind::hello:
    case Kind::beat_of_coordinator:
    case Kind::tick_coordinator:
    case Kind::trainer_task:
      if (event.life != coordinator_.life || !coordinator_.alive) return;
      break;
    default:
      if (event.life != worker(rank).life || !worker(rank).alive) return;
      if (worker(rank).stopped && event.kind != Kind::worker_continues) {
        Event late = event;
        // What comes over the network waits in the buffers of the system, and what the process was at goes on afterwards.
        if (event.kind == Kind::to_worker) late.slot = keep(pool_[static_cast<std::size_t>(event.slot)]);
        worker(rank).late.push_back(late);
        return;
      }
  }
  switch (event.kind) {
    case Kind::to_coordinator:
      coordinator_heard(rank);
      if (coordinator_.admitted[static_cast<std::size_t>(rank)]) {
        coordinator_takes(rank, pool_[static_cast<std::size_t>(event.slot)]);
      } else {
        mail(Kind::who, rank, worker(rank).life, -1);
      }
      break;
    case Kind::hello: {
      const Status status = std::get<Status>(pool_[static_cast<std::size_t>(event.slot)].message);
      const std::string reason = coordinator_.machine->hello(rank, status.process, "e", status, now_);
      if (reason.empty()) {
        coordinator_.admitted[static_cast<std::size_t>(rank)] = status.process;
        coordinator_heard(rank);
        const bool still_there = worker(rank).incarnation == status.process.incarnation;
        if (still_there) mail(Kind::welcome, rank, worker(rank).life, -1);
      }
      coordinator_acts();
      break;
    }
    case Kind::beat_of_coordinator:
      for (int other = 0; other < plan_.group.workers; ++other) {
        if (worker(other).alive && coordinator_.admitted[static_cast<std::size_t>(other)]) {
          mail(Kind::heard_by_worker, other, worker(other).life, -1);
        }
      }
      at(now_ + beat_every, Kind::beat_of_coordinator, -1, coordinator_.life);
      break;
    case Kind::tick_coordinator:
      for (int other = 0; other < plan_.group.workers; ++other) {
        const auto index = static_cast<std::size_t>(other);
        const bool silent = now_ - coordinator_.heard[index] > silence;
        if (coordinator_.admitted[index] && silent && !coordinator_.silent[index]) {
          coordinator_.silent[index] = true;
          coordinator_.machine->silent(other, true, now_);
        }
      }
      coordinator_.machine->tick(now_);
      if (trace) {
        std::string line;
        for (const Member& is : coordinator_.machine->members()) {
          line += fmt::format(" [{}{}{}{} o{} d{} p{} s{}]", static_cast<int>(is.state), is.silent ? " silent" : "",
                              is.gone ? " gone" : "", is.abort ? " abort" : "", is.order ? is.order->segment : -1, is.delivered,
                              static_cast<int>(is.phase), is.step);
        }
        fmt::print("{:.3f} segment {} term {} task {}{}\n", now_, coordinator_.machine->segment(), coordinator_.machine->term(),
                   coordinator_.machine->task().index(), line);
      }
      coordinator_acts();
      if (coordinator_.alive) at(now_ + tick_every, Kind::tick_coordinator, -1, coordinator_.life);
      break;
    case Kind::trainer_task:
      trainer();
      break;
    case Kind::to_worker:
      worker_heard(rank);
      worker_takes(rank, pool_[static_cast<std::size_t>(event.slot)]);
      break;
    case Kind::welcome:
      worker(rank).welcomed = true;
      worker_heard(rank);
      worker(rank).machine->welcomed({1, "c", coordinator_.incarnation}, now_);
      worker_acts(rank);
      break;
    case Kind::who:
      worker(rank).welcomed = false;
      worker_heard(rank);
      break;
    case Kind::heard_by_worker:
      worker_heard(rank);
      break;
    case Kind::beat_of_worker: {
      Worker& is = worker(rank);
      const Status status = is.machine->status(is.running ? is.at : 0);
      if (coordinator_.alive) {
        mail(is.welcomed ? Kind::to_coordinator : Kind::hello, rank, coordinator_.life, keep({status, {}}));
      }
      at(now_ + beat_every, Kind::beat_of_worker, rank, is.life);
      break;
    }
    case Kind::tick_worker: {
      Worker& is = worker(rank);
      if (!is.silent && is.machine->knows_coordinator() && now_ - is.heard > silence) {
        is.silent = true;
        is.welcomed = false;  // a connection on which nothing moves is made anew
        is.machine->silent(true, now_);
      }
      is.machine->tick(now_);
      worker_acts(rank);
      if (is.alive && is.in_sum) sum_next(rank);
      if (is.alive) at(now_ + tick_every, Kind::tick_worker, rank, is.life);
      break;
    }
    case Kind::worker_continues: {
      Worker& is = worker(rank);
      if (now_ < is.stopped_until) break;
      is.stopped = false;
      for (Event& late : std::exchange(is.late, {})) at(now_, late.kind, late.who, late.life, late.slot);
      break;
    }
    case Kind::worker_task:
      worker_main(rank);
      break;
    case Kind::worker_opened: {
      Worker& is = worker(rank);
      is.opened = true;
      is.machine->opened();
      worker_acts(rank);
      step(rank);
      break;
    }
    case Kind::worker_step:
      finish_step(rank);
      break;
    case Kind::sum_done:
    case Kind::sum_fails: {
      Worker& is = worker(rank);
      if (!is.in_sum || is.sum_version < 0 || slot_of(is.sum_version) != event.slot) break;
      const std::int64_t version = is.sum_version;
      is.sum_version = -1;
      if (event.kind == Kind::sum_fails) {
        is.sum->failed(version, now_);
      } else {
        const SumId id = is.sum->question();
        if (is.sum->added_up(version, now_)) return sum_result(rank, arithmetic_[{version, id.number}].value);
      }
      sum_next(rank);
      break;
    }
    default:
      break;
  }
}

// Processes and their launcher.

void World::start_worker(int rank) {
  Worker& is = worker(rank);
  const double pace = is.pace, cut = is.cut_until;
  const int incarnation = is.incarnation;
  is = Worker{};
  is.pace = pace;
  is.cut_until = cut;
  is.incarnation = incarnation;
  is.alive = true;
  is.life = ++lives_;
  is.heard = now_;
  is.machine.emplace(
      WorkerOptions{
          plan_.group.policy, plan_.group.sums, plan_.group.patience, {100 + rank + 10 * incarnation, "h", incarnation}},
      now_);
  is.sum.emplace("g");
  at(now_ + random_.between(0, beat_every), Kind::beat_of_worker, rank, is.life);
  at(now_ + random_.between(0, tick_every), Kind::tick_worker, rank, is.life);
}

void World::start_coordinator() {
  const int incarnation = coordinator_.incarnation;
  const auto count = static_cast<std::size_t>(plan_.group.workers);
  coordinator_ = Coordinator{};
  coordinator_.incarnation = incarnation;
  coordinator_.alive = true;
  coordinator_.life = ++lives_;
  GroupOptions options = plan_.group;
  options.incarnation = incarnation;
  options.trained_before = saved_position_ > 0;
  coordinator_.machine.emplace(options);
  coordinator_.admitted.resize(count);
  coordinator_.heard.assign(count, now_);
  coordinator_.silent.assign(count, false);
  coordinator_.kept = saved_;
  coordinator_.received.resize(count);
  coordinator_.position = saved_position_;
  at(now_, Kind::beat_of_coordinator, -1, coordinator_.life);
  at(now_ + 0.01, Kind::tick_coordinator, -1, coordinator_.life);
  for (int rank = 0; rank < plan_.group.workers; ++rank) {
    if (worker(rank).gone) at(now_ + 0.5, Kind::told_gone, rank, coordinator_.life, worker(rank).incarnation);
  }
  next_segment();
}

void World::end_worker(int rank, int code, bool killed) {
  Worker& is = worker(rank);
  is.alive = false;
  is.exit_code = killed ? killed_exit : code;
  for (const Event& late : is.late) {
    if (late.kind == Kind::to_worker) free_.push_back(late.slot);
  }
  is.late.clear();
  // Connections of a sum break.
  for (auto& [key, sum] : arithmetic_) {
    if (sum.complete) continue;
    for (std::size_t i = 0; i < sum.ranks.size(); ++i) {
      at(now_ + random_.between(0.001, 0.2), Kind::sum_fails, sum.ranks[i], sum.lives[i], slot_of(key.first));
    }
  }
  if (!launcher_alive_) return;
  const bool over = coordinator_.exit_code.has_value() || stop_asked_;
  int& left = restarts_[static_cast<std::size_t>(rank)];
  if (killed && left > 0 && !over) {
    --left;
    ++is.incarnation;
    at(now_ + random_.between(0.1, 1), Kind::start_worker, rank, 0);
    return;
  }
  is.gone = true;
  if (coordinator_.alive) at(now_ + random_.between(0.1, 1.1), Kind::told_gone, rank, coordinator_.life, is.incarnation);
}

void World::kill_coordinator() {
  if (!coordinator_.alive) return;
  coordinator_.alive = false;
  int& left = restarts_.back();
  if (launcher_alive_ && left > 0 && !stop_asked_) {
    --left;
    ++coordinator_.incarnation;
    at(now_ + random_.between(0.3, 1.5), Kind::start_coordinator, -1, 0);
  }
}

void World::strike(Fault fault) {
  const int rank = random_.below(plan_.group.workers);
  Worker& is = worker(rank);
  if (trace) fmt::print("{:.3f} fault {} at {}\n", now_, static_cast<int>(fault), rank);
  switch (fault) {
    case Fault::kill_worker:
      if (is.alive) end_worker(rank, 0, true);
      return;
    case Fault::stop_worker:
      if (!is.alive) return;
      is.stopped = true;
      is.stopped_until = now_ + random_.between(0.2, 4);
      return at(is.stopped_until, Kind::worker_continues, rank, is.life);
    case Fault::cut_link:
      is.cut_until = now_ + random_.between(0.2, 4);
      return;
    case Fault::kill_coordinator:
      return kill_coordinator();
    case Fault::kill_launcher:
      launcher_alive_ = false;
      return;
    case Fault::fill_disk:
      disk_full_ = true;
      return;
    case Fault::ask_to_stop:
      stop_asked_ = true;
      if (coordinator_.alive) coordinator_.machine->stop(now_);
      return;
    case Fault::signal_worker:
      return worker_is_signalled(rank);
    case Fault::fail_worker:
      if (is.alive && is.running && !is.interrupted) {
        failed_once_ = true;
        is.running = is.in_sum = false;
        is.machine->segment_failed(4, "diverged");
        worker_acts(rank);
      }
      return;
  }
}

void World::worker_is_signalled(int rank) {
  Worker& is = worker(rank);
  if (!is.alive) return;
  is.machine->stop_requested();
  stop_asked_ = true;
  const auto& admitted = coordinator_.admitted[static_cast<std::size_t>(rank)];
  const bool alone = plan_.faults.size() == 1 && plan_.loss == 0;
  signal_heard_ = alone && coordinator_.alive && !coordinator_.over && admitted && is.welcomed;
  for (const Worker& other : workers_) {
    const std::int64_t left = plan_.group.total_steps - std::max(other.at, coordinator_.position);
    long_way_left_ = long_way_left_ || 0.7 * other.pace * static_cast<double>(left) > 4;
  }
}

// The coordinator's process.

void World::coordinator_heard(int rank) {
  const auto index = static_cast<std::size_t>(rank);
  coordinator_.heard[index] = now_;
  if (!coordinator_.silent[index]) return;
  coordinator_.silent[index] = false;
  coordinator_.machine->silent(rank, false, now_);
  coordinator_acts();
}

void World::coordinator_takes(int rank, const Envelope& envelope) {
  current_ = envelope;
  coordinator_.machine->received(rank, current_.message, now_);
  coordinator_acts();
}

void World::coordinator_acts() {
  for (const Action& action : coordinator_.machine->take_actions()) {
    if (const auto* send = std::get_if<Send>(&action)) {
      Envelope out{send->message, {}};
      const auto rank = static_cast<std::size_t>(send->rank);
      switch (send->attachment) {
        case Attachment::none:
          break;
        case Attachment::part:
        case Attachment::kept:
          out.state = coordinator_.kept[rank];
          break;
        case Attachment::weights:
          out.state = coordinator_.received[static_cast<std::size_t>(send->of)];
          break;
        case Attachment::same:
          out.state = current_.state;
          break;
      }
      // A process that has been started again has connections of its own.
      if (coordinator_.admitted[rank] && worker(send->rank).alive &&
          coordinator_.admitted[rank]->incarnation == worker(send->rank).incarnation) {
        mail(Kind::to_worker, send->rank, worker(send->rank).life, keep(std::move(out)));
      }
    } else if (const auto* kept = std::get_if<Keep>(&action)) {
      coordinator_.received[static_cast<std::size_t>(kept->rank)] = current_.state;
    }
  }
  if (coordinator_.machine->task().index() == 0 || coordinator_.task_taken) return;
  coordinator_.task_taken = true;
  at(now_ + random_.between(0.001, 0.1), Kind::trainer_task, -1, coordinator_.life);
}

void World::trainer() {
  CoordinatorMachine& machine = *coordinator_.machine;
  coordinator_.task_taken = false;
  const Task task = machine.task();
  machine.task_done(now_);
  if (const auto* ended = std::get_if<SegmentEnded>(&task)) {
    keep_states(*ended);
    if (!wrong_.empty()) return;
    if (disk_full_) return job_over(exit_data);
    saved_ = coordinator_.kept;
    saved_position_ = coordinator_.position;
    coordinator_.stopped = ended->stopped;
    next_segment();
  } else if (const auto* failed = std::get_if<GroupFailed>(&task)) {
    return job_over(failed->code);
  } else if (std::holds_alternative<AllTold>(task)) {
    coordinator_.exit_code = coordinator_.code;
    coordinator_.alive = false;
    return;
  }
  coordinator_acts();
}

void World::next_segment() {
  CoordinatorMachine& machine = *coordinator_.machine;
  if (coordinator_.position >= plan_.group.total_steps) return job_over(exit_ok);
  if (coordinator_.stopped) return job_over(exit_interrupted);
  machine.run_segment(coordinator_.position, segment_end(), now_);
  coordinator_acts();
}

std::int64_t World::segment_end() const {
  return std::min((coordinator_.position / plan_.segment_steps + 1) * plan_.segment_steps, plan_.group.total_steps);
}

void World::keep_states(const SegmentEnded& ended) {
  if (trace) fmt::print("{:.3f} segment ended at {}\n", now_, ended.position);
  if (ended.position < coordinator_.position) return wrong("the job went back and said nothing");
  if (ended.position < segment_end() && !ended.stopped) return wrong("a segment ended too soon, and nobody has asked for it");
  const bool fixed = plan_.group.policy == Policy::fixed;
  for (const int rank : ended.kept) {
    const Replica& got = coordinator_.received[static_cast<std::size_t>(rank)];
    if (fixed && got.steps != ended.position) {
      return wrong(fmt::format("worker {} has {} steps at step {}", rank, got.steps, ended.position));
    }
    if (fixed && plan_.group.sums && got.sums != coordinator_.received[static_cast<std::size_t>(ended.kept.front())].sums) {
      return wrong(fmt::format("worker {} has other sums than worker {}", rank, ended.kept.front()));
    }
    coordinator_.kept[static_cast<std::size_t>(rank)] = got;
  }
  if (fixed && !ended.kept.empty()) {
    for (const int rank : ended.absent)
      coordinator_.kept[static_cast<std::size_t>(rank)] = coordinator_.kept[static_cast<std::size_t>(ended.kept.front())];
  }
  coordinator_.position = ended.position;
}

void World::job_over(int code) {
  coordinator_.code = code;
  coordinator_.over = true;
  ends_.insert(code);
  if (trace) fmt::print("{:.3f} job over: {}\n", now_, code);
  if (code == exit_ok && coordinator_.position < plan_.group.total_steps) wrong("0 for a job that is not done");
  coordinator_.machine->job_over(code, "", code != exit_ok && code != exit_interrupted, now_);
  coordinator_acts();
}

// A worker's process.

void World::worker_heard(int rank) {
  Worker& is = worker(rank);
  is.heard = now_;
  if (!is.silent) return;
  is.silent = false;
  is.machine->silent(false, now_);
}

void World::worker_takes(int rank, const Envelope& envelope) {
  Worker& is = worker(rank);
  if (trace) fmt::print("{:.3f}   worker {} takes {}\n", now_, rank, envelope.message.index());
  const auto before = std::pair(is.machine->term(), is.machine->segment());
  current_ = envelope;
  is.machine->received(current_.message, now_);
  if (std::pair(is.machine->term(), is.machine->segment()) != before) is.begin_state = current_.state;
  worker_acts(rank);
}

void World::worker_report(int rank, const Message& message, bool with_state) {
  if (!coordinator_.alive) return;
  mail(Kind::to_coordinator, rank, coordinator_.life, keep({message, with_state ? worker(rank).replica : Replica{}}));
}

void World::worker_acts(int rank) {
  Worker& is = worker(rank);
  for (const WorkerAction& action : is.machine->take_actions()) {
    if (const auto* report = std::get_if<Report>(&action)) {
      if (trace && std::holds_alternative<Status>(report->message) == false) {
        fmt::print("{:.3f} worker {} reports {}\n", now_, rank, report->message.index());
      }
      worker_report(rank, report->message, report->with_state);
    } else if (std::holds_alternative<Interrupt>(action)) {
      is.interrupted = true;
      if (is.in_sum || is.holding || is.waiting) segment_over(rank, true);
    } else if (const auto* halt = std::get_if<HaltSource>(&action)) {
      if (!is.running) continue;
      if (halt->how == HaltHow::end_at) {
        is.until = std::min(*is.until, std::max(halt->step, is.at));
        is.holding = false;
        if (is.waiting) {
          is.waiting = false;
          step(rank);
        }
      } else if (halt->how == HaltHow::stop) {
        is.until = is.in_sum || !is.waiting ? is.at + 1 : is.at;
      } else if (!is.holding) {
        is.holding = true;
        // A batch that was taken is done; one step is under way at most.
        is.machine->holding(is.opened && !is.waiting ? is.at + 1 : is.at);
        worker_acts(rank);
      }
    } else if (const auto* members = std::get_if<SetMembers>(&action)) {
      is.sum->meet(members->members.version, members->members.replicas, rank);
      if (is.in_sum) {
        if (is.sum_version >= 0 && is.sum_version != is.sum->version()) {
          const std::int64_t version = std::exchange(is.sum_version, -1);
          is.sum->failed(version, now_);
        }
        sum_next(rank);
      }
    } else if (const auto* answer = std::get_if<Answer>(&action)) {
      if (std::holds_alternative<GiveWeights>(answer->message)) {
        if (is.machine->has_weights()) worker_report(rank, Weights{is.machine->status(is.at).process, is.at}, true);
      } else if (const auto* asked = std::get_if<SumAsked>(&answer->message)) {
        if (const auto outcome = is.sum->asked(asked->sum)) {
          Envelope out{SumAnswered{asked->member, asked->sum, *outcome, 1, 0}, {0, is.last_sum}};
          if (coordinator_.alive) mail(Kind::to_coordinator, rank, coordinator_.life, keep(std::move(out)));
        } else if (is.sum->is_behind(asked->sum)) {
          worker_report(rank, Broken{is.sum->version()}, false);
        }
      } else if (const auto* answered = std::get_if<SumAnswered>(&answer->message)) {
        if (is.in_sum && is.sum->answered(answered->member, answered->sum, answered->outcome)) is.given = current_.state;
        if (is.in_sum) sum_next(rank);
      }
    }
    if (!is.alive) return;
  }
  if (is.machine->task().index() != 0) at(now_ + 0.002, Kind::worker_task, rank, is.life);
}

void World::worker_main(int rank) {
  Worker& is = worker(rank);
  const WorkerTask task = is.machine->task();
  if (task.index() == 0 || is.running) return;
  if (const auto* exit = std::get_if<Exit>(&task)) {
    if (trace) fmt::print("{:.3f} worker {} exits with {} {}\n", now_, rank, exit->code, exit->why);
    if (exit->told && !ends_.contains(exit->code)) {
      wrong(fmt::format("worker {} ends with {}, the job with {}", rank, exit->code, coordinator_.code));
    }
    if (!exit->told && exit->code == exit_ok) wrong(fmt::format("worker {} ends with 0, and nobody has told it so", rank));
    if (exit->code == exit_ok && saved_position_ < plan_.group.total_steps) wrong("a worker ends with 0 and the job is not done");
    return end_worker(rank, exit->code, false);
  }
  is.machine->task_taken();
  if (const auto* run = std::get_if<RunSegment>(&task)) {
    is.begin = run->begin;
    run_segment(rank);
  } else {
    is.sum.emplace("g");  // a new term: connections are forgotten
  }
  worker_acts(rank);
}

void World::run_segment(int rank) {
  Worker& is = worker(rank);
  const Begin& begin = *is.begin;
  is.running = true;
  is.interrupted = is.opened = is.waiting = is.holding = is.in_sum = false;
  is.at = begin.begin;
  is.until = begin.end;
  if (begin.from == Source::part) is.replica = is.begin_state;
  if (begin.from == Source::weights) is.replica.sums = is.begin_state.sums;
  if (begin.from == Source::itself && begin.begin == 0) is.replica = {};
  if (plan_.group.policy == Policy::fixed && is.replica.steps != begin.begin) {
    wrong(fmt::format("worker {} begins step {} with a replica of {} steps", rank, begin.begin, is.replica.steps));
  }
  if (!begin.members.empty()) is.sum->meet(begin.version, begin.members, rank);
  at(now_ + random_.between(0.001, 0.15), Kind::worker_opened, rank, is.life);
}

void World::step(int rank) {
  Worker& is = worker(rank);
  if (!is.running) return;
  if (is.interrupted) return segment_over(rank, true);
  if (is.at >= *is.until) return segment_over(rank, false);
  if (is.holding) {
    is.waiting = true;
    return;
  }
  at(now_ + is.pace * random_.between(0.7, 1.3), Kind::worker_step, rank, is.life);
}

void World::finish_step(int rank) {
  Worker& is = worker(rank);
  if (!is.running) return;
  if (is.interrupted) return segment_over(rank, true);
  if (!plan_.group.sums) {
    ++is.at;
    ++is.replica.steps;
    return step(rank);
  }
  is.in_sum = true;
  is.sum_version = -1;
  is.sum->begin(now_);
  sum_next(rank);
}

void World::segment_over(int rank, bool interrupted) {
  Worker& is = worker(rank);
  is.running = is.in_sum = is.waiting = is.holding = false;
  if (interrupted) {
    is.machine->segment_interrupted();
  } else {
    is.machine->segment_ended(is.at, "");
  }
  worker_acts(rank);
}

// Sums: what c10d does for real processes.

void World::sum_next(int rank) {
  Worker& is = worker(rank);
  const SumMachine::Task task = is.sum->next(now_);
  if (trace && task != SumMachine::Task::none) {
    const SumId id = is.sum->question();
    fmt::print("{:.3f}   worker {} sum begun in {} number {} version {}: task {}\n", now_, rank, id.begun, id.number, id.version,
               static_cast<int>(task));
  }
  switch (task) {
    case SumMachine::Task::none:
      return;
    case SumMachine::Task::add_up:
      return sum_joins(rank);
    case SumMachine::Task::complain:
      return worker_report(rank, Broken{is.sum->version()}, false);
    case SumMachine::Task::ask:
      return worker_report(rank, SumAsked{0, is.sum->question()}, false);
    case SumMachine::Task::take: {
      is.sum->taken();
      return sum_result(rank, is.given.sums);
    }
    case SumMachine::Task::alone:
      is.sum->taken();
      return sum_result(rank, mix(17, static_cast<std::uint64_t>(rank)));
  }
}

void World::sum_joins(int rank) {
  Worker& is = worker(rank);
  const SumId id = is.sum->question();
  is.sum_version = is.sum->version();
  Arithmetic& sum = arithmetic_[{id.begun, id.number}];
  if (std::find(sum.lives.begin(), sum.lives.end(), is.life) == sum.lives.end()) {
    sum.ranks.push_back(rank);
    sum.lives.push_back(is.life);
    sum.value = mix(sum.value, mix(is.life, static_cast<std::uint64_t>(is.at)));
  }
  const std::int32_t version = slot_of(id.begun);
  for (const std::int64_t member : is.sum->members()) {
    if (!worker(static_cast<int>(member)).alive) {
      return at(now_ + random_.between(0.01, 0.3), Kind::sum_fails, rank, is.life, version);
    }
  }
  if (sum.ranks.size() < is.sum->members().size()) return;
  sum.complete = true;
  for (std::size_t i = 0; i < sum.ranks.size(); ++i) {
    // Connections may break while the last bytes are on their way: some have the sum, and others not.
    const bool breaks = now_ < last_fault && random_.chance(plan_.loss * 0.3);
    at(now_ + random_.between(0.001, 0.1), breaks ? Kind::sum_fails : Kind::sum_done, sum.ranks[i], sum.lives[i], version);
  }
}

void World::sum_result(int rank, std::uint64_t value) {
  Worker& is = worker(rank);
  is.in_sum = false;
  is.last_sum = value;
  is.replica.sums = mix(is.replica.sums, value);
  ++is.at;
  ++is.replica.steps;
  step(rank);
}

// Judgement.

void World::wrong(const std::string& what) {
  if (wrong_.empty()) wrong_ = fmt::format("at {:.3f} s: {}", now_, what);
}

bool World::over() const {
  const auto pending_start = [&] {  // somebody will be started again
    return now_ < 12;
  };
  if (coordinator_.alive) return false;
  if (std::any_of(workers_.begin(), workers_.end(), [](const Worker& is) { return is.alive; })) return false;
  return !pending_start();
}

std::string World::verdict() const {
  for (std::size_t rank = 0; rank < workers_.size(); ++rank) {
    if (workers_[rank].alive) return fmt::format("worker {} never ended", rank);
  }
  if (!signal_heard_) return "";
  // A worker's signal alone: the job ends with what it has, and says so, or it was over before.
  if (!coordinator_.exit_code) return "a worker's signal, and the coordinator never ended";
  const int code = *coordinator_.exit_code;
  if (code != exit_interrupted && (code != exit_ok || long_way_left_))
    return fmt::format("a worker's signal ends the job with {}", code);
  for (std::size_t rank = 0; rank < workers_.size(); ++rank) {
    if (workers_[rank].exit_code == code) continue;
    return fmt::format("after a worker's signal worker {} ends with {}, the job with {}", rank, workers_[rank].exit_code, code);
  }
  return "";
}

}  // namespace membership_world
