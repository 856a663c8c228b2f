#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "cluster/coordinator.h"
#include "cluster/transport_options.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"

// What `rubato status` and the metrics page show.

namespace rubato {
namespace {

using namespace std::chrono_literals;

}  // namespace

/// What earlier coordinators of this job have counted, and which workers they knew; all but their last second of it.
void Coordinator::remember() {
  const auto file = std::filesystem::path(plan_.options.run_dir) / "status.json";
  if (plan_.processes->incarnation == 0 || !std::filesystem::exists(file)) return;
  try {
    const JobStatus before = status_from_json(read_file(file), file.string());
    deaths_ = before.deaths;
    joins_ = before.joins;
    for (const WorkerStatus& worker : before.workers) {
      if (worker.rank < 0 || worker.rank >= static_cast<int>(table_.size())) continue;
      Greeting& greeting = table_[static_cast<std::size_t>(worker.rank)].greeting;
      greeting.pid = worker.pid;
      greeting.host = worker.host;
      greeting.incarnation = worker.incarnation;
    }
  } catch (const DataError&) {  // then they count from here
  }
}

void Coordinator::begin_status() {
  state_ = "running";
  status_writer_ = std::jthread([this](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any pause;
    while (!stop.stop_requested()) {
      std::string state;
      {
        const std::lock_guard lock(mutex_);
        state = state_;
      }
      write_status(state);
      std::unique_lock lock(mutex);
      pause.wait_for(lock, stop, 1s, [] { return false; });
    }
  });
}

WorkerStatus Coordinator::status_of(int rank) const {
  const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
  static constexpr const char* names[] = {"missing", "alive", "alive", "finished", "dead"};
  WorkerStatus status{.rank = rank,
                      .stage = plan_.place.parts > 1 ? rank % plan_.place.parts : -1,
                      .host = entry.greeting.host,
                      .pid = entry.greeting.pid,
                      .incarnation = entry.greeting.incarnation,
                      .state = entry.silent && entry.present() ? "silent" : names[entry.state],
                      .step = entry.step,
                      .samples = entry.beat.samples,
                      .samples_per_second = entry.state == WorkerEntry::running ? entry.rate : 0};
  if (entry.beat.samples > 0) status.loss = entry.beat.loss;
  for (const StalenessCount& block : entry.beat.staleness) {
    status.staleness_mean = std::max(status.staleness_mean, block.mean());
    status.staleness_max = std::max(status.staleness_max, static_cast<double>(block.max));
  }
  const WaitCount& waited = entry.beat.waited;
  status.waiting_seconds = waited.seconds;
  status.waiting_share = std::clamp(waited.seconds / std::max(seconds_since(entry.began), 1e-9), 0.0, 1.0);
  status.longest_wait_seconds = waited.longest;
  status.exchanges = waited.waits - waited.in_vain;
  status.exchanges_skipped = waited.in_vain;
  status.bytes_sent = entry.beat.traffic.sent;
  status.bytes_received = entry.beat.traffic.received;
  status.silent_seconds = seconds_since(entry.heard);
  return status;
}

JobStatus Coordinator::status(const std::string& state) const {
  const Refusals refusals = transport_->refusals();
  JobStatus job{.time = static_cast<double>(std::chrono::system_clock::now().time_since_epoch().count()) * 1e-9,
                .state = state,
                .run = plan_.options.run_dir,
                .schedule = plan_.options.schedule,
                .coupling = plan_.options.coupling,
                .total_steps = plan_.total_steps,
                .train_loss = train_loss_,
                .test_accuracy = test_accuracy_,
                .coordinator = {.pid = getpid(),
                                .host = host_name(),
                                .incarnation = plan_.processes->incarnation,
                                .rebuilt_from = rebuilt_from_},
                .deaths = deaths_,
                .joins = joins_,
                .refused = refusals.count(),
                .refused_reasons = refusals.reasons,
                .last_refused = refusals.last};
  const MeterReading reading = meter_.reading();
  if (reading.samples > 0) job.train_loss = reading.loss;
  std::optional<std::int64_t> least;
  std::int64_t furthest = 0;
  for (const WorkerEntry& entry : table_) furthest = std::max(furthest, entry.step);
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    job.workers.push_back(status_of(rank));
    if (job.workers.back().state != "missing") job.workers.back().steps_behind = furthest - job.workers.back().step;
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (entry.present()) least = std::min(least.value_or(entry.step), entry.step);
  }
  job.step = least.value_or(0);
  return job;
}

void Coordinator::write_status(const std::string& state) {
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    state_ = state;
    text = to_json(status(state));
  }
  try {
    write_atomically(std::filesystem::path(plan_.options.run_dir) / "status.json", text);
  } catch (const DataError&) {  // the run goes on; the summary will say whether the folder can be written
  }
}

}  // namespace rubato
