#include "launch/supervisor.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cstdint>

#include "launch/process_command.h"
#include "launch/run_folder.h"
#include "rubato/core/error.h"

namespace rubato {

/// Something that poll waits for. No process: the signals.
struct Supervisor::Watch {
  enum class Kind { signals, output, errors, end };
  int descriptor;
  Kind kind;
  Supervised* process = nullptr;
};

Supervisor::Supervisor(JobRecord job, SupervisorOptions options, const Signals& signals)
    : job_(std::move(job)), options_(std::move(options)), environment_(inherited_environment()), signals_(signals) {
  job_.launcher = getpid();
  job_.launcher_start_time = start_time_of(getpid()).value_or(0);
  for (ProcessRecord& record : job_.processes) {
    processes_.emplace_back(record, options_.restarts, options_.quiet, options_.patience);
  }
}

Command Supervisor::command_of(std::size_t index) const {
  return rubato::command_of(job_, index, options_.run, environment_);
}

void Supervisor::start() {
  try {
    for (std::size_t i = 0; i < processes_.size(); ++i) {
      processes_[i].start(command_of(i));
      write_job(options_.run, job_);
    }
  } catch (const Error&) {
    tell_all(SIGKILL);
    throw;
  }
}

void Supervisor::attach() {
  for (Supervised& process : processes_) attach_to(process);
  save();
}

void Supervisor::attach_to(Supervised& process) {
  const ProcessRecord& record = process.record();
  if (record.exited) {
    on_end(process, *record.exited);
  } else if (auto child = Child::adopt(record.pid, record.start_time)) {
    process.adopt(std::move(*child));
    say(fmt::format("{} still runs (process {}); what it prints cannot be seen any more", record.name, record.pid));
  } else {
    on_end(process, {});
  }
}

int Supervisor::run() {
  while (someone_expected()) wait();
  save();
  return result_.value_or(static_cast<int>(ExitCode::data));
}

void Supervisor::wait() {
  const std::vector<Watch> all = watched();
  std::vector<pollfd> descriptors;
  for (const Watch& watch : all) descriptors.push_back({watch.descriptor, POLLIN, 0});
  // Ends come last in the list: what a process said is passed on before it is.
  if (poll(descriptors.data(), descriptors.size(), milliseconds_to_wait()) > 0) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (descriptors[i].revents != 0) handle(all[i]);
    }
  }
  act_on_time();
}

std::vector<Supervisor::Watch> Supervisor::watched() {
  std::vector<Watch> all = {{signals_.source(), Watch::Kind::signals}};
  for (Supervised& process : processes_) {
    if (process.output().source() >= 0) all.push_back({process.output().source(), Watch::Kind::output, &process});
    if (process.errors().source() >= 0) all.push_back({process.errors().source(), Watch::Kind::errors, &process});
  }
  for (Supervised& process : processes_) {
    if (process.runs()) all.push_back({process.child().ended(), Watch::Kind::end, &process});
  }
  return all;
}

int Supervisor::milliseconds_to_wait() const {
  std::optional<LaunchClock::time_point> first;
  const auto consider = [&](const std::optional<LaunchClock::time_point>& time) {
    if (time && (!first || *time < *first)) first = time;
  };
  consider(terminate_at_);
  consider(kill_at_);
  for (const Supervised& process : processes_) consider(process.start_at());
  if (!first) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*first - LaunchClock::now());
  return static_cast<int>(std::max<std::int64_t>(0, left.count()));
}

void Supervisor::handle(const Watch& watch) {
  switch (watch.kind) {
    case Watch::Kind::signals:
      for (int left = signals_.take(); left > 0; --left) on_signal();
      break;
    case Watch::Kind::output:
      watch.process->output().pass_on();
      break;
    case Watch::Kind::errors:
      watch.process->errors().pass_on();
      break;
    case Watch::Kind::end:
      on_end(*watch.process, watch.process->collect());
      break;
  }
}

void Supervisor::act_on_time() {
  const LaunchClock::time_point now = LaunchClock::now();
  for (std::size_t i = 0; i < processes_.size(); ++i) {
    if (processes_[i].start_at() && *processes_[i].start_at() <= now) start_again(i);
  }
  if (terminate_at_ && *terminate_at_ <= now) {
    end_the_rest();
  }
  if (kill_at_ && *kill_at_ <= now) {
    kill_at_.reset();
    tell_all(SIGKILL);
  }
}

/// The coordinator has ended, and these have not.
void Supervisor::end_the_rest() {
  terminate_at_.reset();
  const Ending coordinator = processes_.front().record().exited.value_or(Ending{});
  if (coordinator.code || refused_) {
    for (const Supervised& process : processes_) process.tell_job_code(*result_);
    kill_at_ = LaunchClock::now() + options_.patience.after_code_told;
  } else {
    tell_all(SIGTERM);
    kill_at_ = LaunchClock::now() + options_.patience.after_all_told;
  }
}

void Supervisor::start_again(std::size_t index) {
  try {
    processes_[index].start(command_of(index));
    save();
  } catch (const Error& error) {
    say(fmt::format("{} cannot be started again: {}", processes_[index].record().name, error.what()));
    gone_for_good(processes_[index], {});
  }
}

void Supervisor::on_end(Supervised& process, Ending ending) {
  const std::string& name = process.record().name;
  // Of processes that were not our children the run folder knows how they ended, if the job did.
  if (ending == Ending{}) {
    const auto code = exit_code_of_run(options_.run, processes_.front().record().started);
    ending.code = code && !process.coordinator() ? 0 : code;
  }
  const bool wanted = process.asks_for_restart(ending) && signals_seen_ == 0 && !result_;
  if (wanted && process.restarts_left() > 0) {
    process.schedule(ending);
    say(fmt::format("{} ended ({}); it is started again, {} restart(s) are left", name, to_text(ending),
                    process.restarts_left()));
    return;
  }
  if (!process.coordinator() && ending.code == static_cast<int>(ExitCode::interrupted)) pass_on_wish();
  if (ending.code != 0) say(fmt::format("{} ended ({}){}", name, to_text(ending), wanted ? "; no restart is left" : ""));
  gone_for_good(process, ending);
}

/// Whoever asks one worker to stop asks the job. The worker says so itself, unless it was not ready for that.
void Supervisor::pass_on_wish() {
  if (signals_seen_ == 0 && !result_) processes_.front().signal(SIGTERM);
}

void Supervisor::gone_for_good(Supervised& process, const Ending& ending) {
  process.give_up(ending);
  if (process.coordinator()) coordinator_ended(ending);
  save();
}

void Supervisor::coordinator_ended(const Ending& ending) {
  result_ = ending.code.value_or(static_cast<int>(signals_seen_ > 0 ? ExitCode::interrupted : ExitCode::data));
  const ProcessRecord& coordinator = processes_.front().record();
  const bool refuses = ending.code == static_cast<int>(ExitCode::usage) || ending.code == static_cast<int>(ExitCode::data) ||
                       result_ == static_cast<int>(ExitCode::interrupted);
  refused_ = refuses && coordinator.incarnation == 0 && !was_written_by(options_.run, coordinator.pid);
  stop_restarts();
  if (signals_seen_ == 0 && !ending.code) {
    say("the job has lost its coordinator, which held the weights: go on from its last checkpoint with rubato launch -- train "
        "--resume " +
        options_.run.string());
  }
  if (kill_at_) return;
  const Patience& patience = options_.patience;
  const Patience::Time wait = refused_      ? Patience::Time(0)
                              : ending.code ? patience.after_coordinator
                                            : patience.after_lost_coordinator;
  terminate_at_ = LaunchClock::now() + wait;
}

void Supervisor::stop_restarts() {
  for (Supervised& process : processes_) {
    if (!process.start_at()) continue;
    process.cancel();
    if (process.coordinator()) coordinator_ended(*process.record().exited);
  }
}

void Supervisor::on_signal() {
  const LaunchClock::time_point now = LaunchClock::now();
  if (signals_seen_ > 0 && now - last_signal_ < options_.patience.one_wish) return;
  last_signal_ = now;
  ++signals_seen_;
  stop_restarts();
  if (signals_seen_ == 1 && processes_.front().runs()) {
    processes_.front().signal(SIGTERM);
  } else if (signals_seen_ <= 2) {
    terminate_at_.reset();
    tell_all(SIGTERM);
    kill_at_ = now + options_.patience.after_all_told;
  } else {
    tell_all(SIGKILL);
  }
  save();
}

void Supervisor::tell_all(int number) {
  for (const Supervised& process : processes_) process.signal(number);
}

bool Supervisor::someone_expected() const {
  return std::any_of(processes_.begin(), processes_.end(), [](const Supervised& process) { return process.expected(); });
}

bool Supervisor::output_was_lost() const {
  return std::any_of(processes_.begin(), processes_.end(), [](const Supervised& process) { return process.output_was_lost(); });
}

void Supervisor::save() {
  try {
    write_job(options_.run, job_);
  } catch (const Error& error) {
    if (!save_failed_) say(error.what());
    save_failed_ = true;
  }
}

void Supervisor::say(const std::string& sentence) const {
  fmt::print(stderr, "rubato: {}\n", sentence);
}

}  // namespace rubato
