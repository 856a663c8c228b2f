#include "cluster/home.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "cluster/post_options.h"
#include "rubato/cluster/home.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/io/files.h"
#include "rubato/monitor/metrics_page.h"
#include "rubato/wire/packing.h"

namespace rubato {
namespace {

using namespace std::chrono_literals;
constexpr double longest_farewell = 5, longest_welcome = 3;  // seconds

void add(StalenessCount& sum, const StalenessCount& more) {
  sum.updates += more.updates;
  sum.sum += more.sum;
  sum.max = std::max(sum.max, more.max);
}

}  // namespace

Home::Home(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note)
    : plan_(plan),
      job_(job),
      meter_(meter),
      note_(std::move(note)),
      sums_(find_coupling(plan.options.coupling).extra_roles == 0 && plan.options.replicas > 1),
      table_(static_cast<std::size_t>(plan.processes->world)),
      generation_(std::int64_t{plan.processes->incarnation} << 32) {
  unpack_to(plan.stage.device);
  RuntimeOptions roles = plan_.roles;
  roles.processors = 0;  // the centre must not wait for a turn
  runtime_ = make_process_runtime(roles, *this, plan_.options.silence);
  post_ = std::make_unique<Post>(post_options(plan, *plan.processes), *this);
  attach(*post_, *runtime_);
  if (!plan.options.metrics.empty()) {
    const auto [address, port] = address_and_port(plan.options.metrics);
    page_ = std::make_unique<MetricsPage>(address, port, [this] {
      const std::lock_guard lock(mutex_);
      return prometheus_text(status(state_));
    });
  }
}

Home::~Home() {
  close();
}

void Home::close() {
  if (centre_.joinable()) runtime_->interrupt();
  join_centre();
  status_writer_ = {};
  page_.reset();
  post_.reset();
}

void Home::order(int rank, const char* what, Packed content, std::int64_t serial) {
  post_->send(rank, {.kind = FrameKind::order, .about = what, .serial = serial, .content = std::move(content)});
}

void Home::meet(const std::vector<std::int64_t>& members) {
  std::vector<std::pair<std::int64_t, std::int64_t>> processes;
  for (const std::int64_t member : members) {
    processes.emplace_back(member, table_.at(static_cast<std::size_t>(member)).greeting.pid);
  }
  if (std::exchange(met_, processes) == processes) return;
  ++generation_;
  board_.clear();
}

void Home::order_members(const std::vector<std::int64_t>& members) {
  if (!sums_) return;
  meet(members);
  Packed content;
  content.numbers = {generation_};
  content.numbers.insert(content.numbers.end(), members.begin(), members.end());
  for (const std::int64_t member : members) order(static_cast<int>(member), order::members, content);
}

void Home::order_all(const char* what, const Packed& content, std::int64_t serial) {
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) order(rank, what, content, serial);
}

void Home::open() {
  if (status_writer_.joinable()) return;
  remember();
  post_->start();
  begin_status();
}

void Home::start_centre() {
  std::vector<Role> roles = job_.roles();
  if (roles.empty()) return;
  centre_ = std::jthread([this, roles = std::move(roles)] {
    try {
      runtime_->run(roles);
    } catch (const Stopped&) {
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      changed_.notify_all();
    }
  });
}

void Home::join_centre() {
  if (centre_.joinable()) centre_.join();
}

std::shared_ptr<const Summable> Home::all_reduce(const GroupSpec&, int, std::unique_ptr<Summable>) {
  throw std::logic_error("the home takes no part in sums");
}

void Home::listens(const std::string& channel) {
  if (!remember_own(channel)) return;
  Packed where;
  where.numbers = {home_rank};
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    post_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = era(), .content = where});
  }
}

std::string Home::admit(const Greeting& greeting) {
  const std::lock_guard lock(mutex_);
  if (greeting.rank < 0 || greeting.rank >= static_cast<int>(table_.size())) {
    return fmt::format("there is no worker {} in a job of {}", greeting.rank, table_.size());
  }
  WorkerEntry& entry = table_[static_cast<std::size_t>(greeting.rank)];
  const bool same = entry.greeting.pid == greeting.pid && entry.greeting.host == greeting.host &&
                    entry.greeting.incarnation == greeting.incarnation;
  if (!same && entry.greeting.incarnation > greeting.incarnation) return "this worker has been started again since";
  const WorkerDetails details = WorkerDetails::unpack(greeting.details);
  if (!same && entry.present()) {
    mark_dead(greeting.rank);
  } else if (!same && entry.state == WorkerEntry::missing && entry.greeting.pid != 0) {
    ++deaths_;  // an earlier home knew the one before it
  }
  say_where(greeting.rank);
  if (same && entry.present()) return "";  // a hello that was on its way twice
  if (!same && (greeting.incarnation > 0 || entry.state == WorkerEntry::dead)) ++joins_;
  if (!same) {
    runtime_->expect(greeting.rank);
    entry.synced = entry.held = entry.started = entry.left = false;
    entry.beat = {};
    entry.began = WorkerEntry::Clock::now();
  }
  entry.greeting = greeting;
  entry.heard = WorkerEntry::Clock::now();
  entry.silent = false;
  entry.segment = details.segment;
  entry.step = std::max(entry.step, details.step);
  // A worker that has finished says so next.
  entry.state = details.phase == WorkerPhase::idle ? WorkerEntry::idle : WorkerEntry::running;
  if (end_) {
    say_end(greeting.rank);
  } else {
    came(greeting.rank);
  }
  changed_.notify_all();
  return "";
}

/// The channels that are received here.
void Home::say_where(int rank) {
  Packed where;
  where.numbers = {home_rank};
  for (const std::string& channel : own_channels()) {
    post_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = era(), .content = where});
  }
}

void Home::mark_dead(int rank) {
  WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
  if (entry.state == WorkerEntry::dead) return;
  ++deaths_;
  entry.state = WorkerEntry::dead;
  entry.died = WorkerEntry::Clock::now();
  entry.synced = false;
  entry.weights.reset();
  for (std::size_t block = 0; block < entry.beat.staleness.size(); ++block) {
    staleness_of_the_dead_.resize(std::max(staleness_of_the_dead_.size(), block + 1));
    add(staleness_of_the_dead_[block], entry.beat.staleness[block]);
  }
  entry.beat.staleness.clear();
  std::erase_if(places_, [rank](const auto& place) { return place.second == rank; });
  runtime_->lost(rank);
  died(rank);
  changed_.notify_all();
}

void Home::look_for_the_dead() {
  if (seconds_since(last_look_) < 1) return;
  last_look_ = WorkerEntry::Clock::now();
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    const bool quiet = entry.silent || seconds_since(entry.heard) > plan_.options.silence;
    if (quiet && entry.present() && will_not_come(rank)) mark_dead(rank);
  }
}

bool Home::will_not_come(int rank) const {
  const auto file = std::filesystem::path(plan_.options.run_dir) / "job.json";
  if (!std::filesystem::exists(file)) return false;
  const auto json = nlohmann::json::parse(read_file(file), nullptr, false);
  if (json.is_discarded() || !json.contains("processes")) return false;
  for (const auto& process : json["processes"]) {
    if (process.value("rank", -2) == rank) return process.contains("exited") && !process["exited"].is_null();
  }
  return false;
}

void Home::silent(int peer, bool is_silent) {
  const std::lock_guard lock(mutex_);
  if (peer < 0 || peer >= static_cast<int>(table_.size())) return;
  WorkerEntry& entry = table_[static_cast<std::size_t>(peer)];
  entry.silent = is_silent;
  if (is_silent) {
    died(peer);
  } else {
    came(peer);
  }
  changed_.notify_all();
}

StalenessCount Home::staleness_of(int block) const {
  const auto index = static_cast<std::size_t>(block);
  StalenessCount sum;
  if (index < staleness_of_the_dead_.size()) add(sum, staleness_of_the_dead_[index]);
  for (const WorkerEntry& entry : table_) {
    if (index < entry.beat.staleness.size()) add(sum, entry.beat.staleness[index]);
  }
  return sum;
}

Packed Home::beat() {
  return {};
}

void Home::tell(double train_loss, double test_accuracy) {
  const std::lock_guard lock(mutex_);
  train_loss_ = train_loss;
  test_accuracy_ = test_accuracy;
}

void Home::finish(const JobEnd& end) {
  const bool was_open = status_writer_.joinable();
  open();  // it may have failed, or have nothing left to do, before anybody was let in
  tell_the_end(end, !was_open || (end.code != ExitCode::ok && end.code != ExitCode::interrupted));
  status_writer_ = {};
  write_status(end.status);
}

void Home::refuse(const JobEnd& end) {
  post_->start();
  tell_the_end(end, true);
}

/// Until all that are there have said that they leave. `others_come`: those that are still on their way have a moment to come,
/// where the job has failed for want of them, or needed nobody.
void Home::tell_the_end(const JobEnd& end, bool others_come) {
  std::unique_lock lock(mutex_);
  end_ = end;
  const auto begin = WorkerEntry::Clock::now();
  const auto waited_for = [&](const WorkerEntry& entry) {
    if (entry.left || entry.state == WorkerEntry::dead || entry.silent) return false;
    if (entry.state == WorkerEntry::missing) return others_come && seconds_since(begin) < longest_welcome;
    return true;
  };
  while (std::any_of(table_.begin(), table_.end(), waited_for) && seconds_since(begin) < longest_farewell) {
    look_for_the_dead();
    for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
      if (!table_[static_cast<std::size_t>(rank)].left) say_end(rank);
    }
    changed_.wait_for(lock, 300ms);
  }
}

void Home::say_end(int rank) {
  Packed content;
  content.numbers = {static_cast<int>(end_->code)};
  content.texts = {end_->why};
  order(rank, order::leave, std::move(content));
}

std::unique_ptr<Execution> make_home(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note) {
  const auto make = has_free_membership(plan.options, plan.place.parts) ? make_free_home : make_fixed_home;
  return make(plan, job, meter, std::move(note));
}

}  // namespace rubato
