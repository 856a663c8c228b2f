#include "train/home.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/replica/packing.h"
#include "rubato/train/files.h"
#include "train/metrics_page.h"
#include "train/post_options.h"

namespace rubato {
namespace {

using namespace std::chrono_literals;

double seconds_since(WorkerEntry::Clock::time_point begin) {
  return std::chrono::duration<double>(WorkerEntry::Clock::now() - begin).count();
}

/// "127.0.0.1:9100"
std::pair<std::string, int> address_and_port(const std::string& text) {
  const auto colon = text.rfind(':');
  int port = -1;
  if (colon != std::string::npos) {
    const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size()) port = -1;
  }
  if (port < 0 || port > 65535) throw UsageError("--metrics '" + text + "' is not ADDRESS:PORT, such as 127.0.0.1:9400");
  return {text.substr(0, colon), port};
}

std::exception_ptr failure_of(const Packed& content) {
  Unpacker unpacker(content);
  const auto code = static_cast<ExitCode>(unpacker.number());
  const std::string& sentence = unpacker.text();
  if (code == ExitCode::diverged) return std::make_exception_ptr(DivergedError(sentence));
  if (code == ExitCode::data) return std::make_exception_ptr(DataError(sentence));
  return std::make_exception_ptr(UsageError(sentence));
}

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
  remember_counts();
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
  if (!same && entry.present()) mark_dead(greeting.rank);
  say_where(greeting.rank);
  if (same && entry.present()) return "";  // a hello that was on its way twice
  if (!same && (greeting.incarnation > 0 || entry.state == WorkerEntry::dead)) ++joins_;
  if (!same) {
    runtime_->expect(greeting.rank);
    entry.synced = entry.held = entry.started = false;
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
  came(greeting.rank);
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

void Home::arrived(int peer, Frame frame) {
  if (peer < 0) return;
  if (frame.kind == FrameKind::beat) return beat_came(peer, frame.content);
  if (frame.kind == FrameKind::listens) return worker_listens(peer, frame.about);
  if (frame.kind != FrameKind::report) {
    carry(peer, frame);
  } else if (frame.about == report::ask || frame.about == report::sum) {
    relay(peer, frame);
  } else if (frame.about == report::put || frame.about == report::look) {
    meeting_place(peer, frame);
  } else {
    report_came(peer, frame);
  }
}

/// What the meter says of them: a loss may have diverged.
std::exception_ptr Home::count(const std::vector<StepReport>& steps) {
  try {
    for (StepReport step : steps) {
      step.time = now();
      meter_.step(step);
    }
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

void Home::beat_came(int peer, const Packed& content) {
  Unpacker unpacker(content);
  WorkerBeat beat = WorkerBeat::unpack(unpacker);
  const std::vector<StepReport> steps = std::move(beat.steps);
  beat.steps.clear();
  const std::exception_ptr failure = count(steps);
  const std::lock_guard lock(mutex_);
  WorkerEntry& entry = table_.at(static_cast<std::size_t>(peer));
  if (!failure_) failure_ = failure;
  entry.heard = WorkerEntry::Clock::now();
  entry.step = std::max(entry.step, beat.step);
  if (const double passed = seconds_since(entry.rate_at); passed > 2) {
    entry.rate = static_cast<double>(beat.samples - entry.samples_at) / passed;
    entry.samples_at = beat.samples;
    entry.rate_at = entry.heard;
  }
  entry.beat = std::move(beat);
  changed_.notify_all();
}

void Home::worker_listens(int peer, const std::string& channel) {
  runtime_->located(channel, peer);
  const std::lock_guard lock(mutex_);
  places_[channel] = peer;
  if (plan_.place.parts == 1) return;
  Packed where;
  where.numbers = {peer};
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    if (rank != peer) post_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = era(), .content = where});
  }
}

/// What members of sums leave here for each other.
void Home::meeting_place(int peer, Frame& frame) {
  Unpacker unpacker(frame.content);
  const std::string& key = unpacker.text();
  const std::lock_guard lock(mutex_);
  std::set<int> asking;
  std::optional<std::string> value;
  if (frame.about == report::put) {
    value = unpack_bytes(unpacker);
    asking = board_.put(key, *value);
  } else if ((value = board_.ask(peer, key))) {
    asking = {peer};
  }
  for (const int rank : asking) {
    Packed found;
    found.texts = {key};
    pack_bytes(found, *value);
    order(rank, order::found, std::move(found));
  }
}

/// Questions and answers between workers about a sum that a death has left unfinished.
void Home::relay(int peer, Frame& frame) {
  if (frame.about == report::ask) {
    frame.content.numbers.insert(frame.content.numbers.begin(), peer);
    const std::lock_guard lock(mutex_);
    for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
      if (rank != peer && table_[static_cast<std::size_t>(rank)].present()) order(rank, order::asked, frame.content);
    }
    return;
  }
  Unpacker unpacker(frame.content);
  const int asker = static_cast<int>(unpacker.number());
  frame.content.numbers.front() = peer;
  order(asker, order::sum, std::move(frame.content));
}

void Home::report_came(int peer, Frame& frame) {
  const std::lock_guard lock(mutex_);
  WorkerEntry& entry = table_.at(static_cast<std::size_t>(peer));
  const bool outdated = frame.serial < era();
  if (outdated && (frame.about == report::finished || frame.about == report::aborted)) return;
  if (frame.about == report::finished) {
    entry.finish = FinishedReport::unpack(frame.content);
    entry.step = entry.finish.position;
    entry.state = WorkerEntry::finished;
    Unpacker unpacker(entry.finish.beat);
    entry.beat = WorkerBeat::unpack(unpacker);
    const std::exception_ptr failure = count(entry.beat.steps);
    if (!failure_) failure_ = failure;
    reported(peer);
  } else if (frame.about == report::aborted) {
    entry.era = frame.serial;
    entry.state = WorkerEntry::idle;
  } else if (frame.about == report::failed) {
    entry.state = WorkerEntry::idle;
    if (!failure_) failure_ = failure_of(frame.content);
  } else if (frame.about == report::weights) {
    entry.weights = std::move(frame.content);
    entry.weights_at = WorkerEntry::Clock::now();
    entry.step = std::max(entry.step, frame.serial);
  } else if (frame.about == report::held) {
    Unpacker unpacker(frame.content);
    entry.step = unpacker.number();
    entry.held = true;
  } else if (frame.about == report::stop) {
    stop_wanted_ = true;
  } else if (frame.about == report::broken) {
    Unpacker unpacker(frame.content);
    if (unpacker.number() == generation_) sums_broken();
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

void Home::finish(const std::string& status) {
  Packed content;
  content.numbers = {status == "interrupted" ? static_cast<int>(ExitCode::interrupted) : 0};
  order_all(order::leave, content);
  post_->flush(1);
  status_writer_ = {};
  write_status(status);
}

}  // namespace rubato
