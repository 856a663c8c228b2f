#include "launch/supervised.h"

#include <algorithm>
#include <csignal>

#include "launch/hosts.h"

namespace rubato {
namespace {

constexpr int start_me_again = 75;  // EX_TEMPFAIL
constexpr int ssh_lost_it = 255;    // the connection broke, or a signal ended the remote process

std::string prefix_of(const ProcessRecord& record, bool coordinator_plain) {
  return record.coordinator() && coordinator_plain ? "" : "[" + record.name + "] ";
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Supervised::Supervised(ProcessRecord& record, int restarts, bool coordinator_plain, const Patience& patience)
    : record_(&record),
      patience_(patience),
      output_(coordinator_plain && !record.coordinator() ? -1 : STDOUT_FILENO, prefix_of(record, coordinator_plain)),
      errors_(STDERR_FILENO, prefix_of(record, coordinator_plain)),
      restarts_left_(restarts),
      pause_(patience.shortest_pause) {}

void Supervised::start(const Command& command) {
  start_at_.reset();
  record_->started = seconds_since_1970();
  Child child = Child::start(command);
  record_->pid = child.pid();
  record_->start_time = child.start_time();
  record_->exited.reset();
  output_.attach(std::move(child.output));
  errors_.attach(std::move(child.errors));
  adopt(std::move(child));
}

void Supervised::adopt(Child child) {
  started_ = LaunchClock::now();
  child_ = std::move(child);
}

Ending Supervised::collect() {
  const Ending ending = child_->ending();
  output_.finish();
  errors_.finish();
  child_.reset();
  return ending;
}

bool Supervised::asks_for_restart(const Ending& ending) const {
  return !ending.code || *ending.code == start_me_again || (record_->host != this_machine && *ending.code == ssh_lost_it);
}

void Supervised::schedule(const Ending& ending) {
  const LaunchClock::time_point now = LaunchClock::now();
  if (now - started_ >= patience_.short_life) pause_ = patience_.shortest_pause;
  last_ = ending;
  start_at_ = now + pause_;
  pause_ = std::min(2 * pause_, patience_.longest_pause);
  --restarts_left_;
  ++record_->incarnation;
}

void Supervised::give_up(const Ending& ending) {
  start_at_.reset();
  record_->exited = ending;
}

void Supervised::signal(int number) const {
  if (child_) child_->signal(number);
}

void Supervised::tell_job_code(int code) const {
  if (record_->host != this_machine) return signal(SIGTERM);
  if (child_) child_->tell_job_code(code);
}

}  // namespace rubato
