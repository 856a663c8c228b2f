#include "cluster/worker_record.h"

#include <algorithm>

namespace rubato {
namespace {

double seconds_since(WorkerRecord::Clock::time_point begin) {
  return std::chrono::duration<double>(WorkerRecord::Clock::now() - begin).count();
}

}  // namespace

void WorkerRecord::measure_rate() {
  const double passed = seconds_since(rate_at);
  if (passed <= 2) return;
  rate = static_cast<double>(figures.samples - samples_at) / passed;
  samples_at = figures.samples;
  rate_at = Clock::now();
}

WorkerStatus status_of(const membership::Member& member, const WorkerRecord& is, double now) {
  static constexpr const char* names[] = {"missing", "alive", "alive", "finished", "dead"};
  WorkerStatus status{.host = member.process.host,
                      .pid = member.process.id,
                      .incarnation = member.process.incarnation,
                      .state = member.silent && member.present() ? "silent" : names[static_cast<int>(member.state)],
                      .step = member.step,
                      .samples = is.figures.samples,
                      .samples_per_second = member.state == membership::Member::State::running ? is.rate : 0};
  if (is.figures.samples > 0) status.loss = is.figures.loss;
  for (const StalenessCount& block : is.figures.staleness) {
    status.staleness_mean = std::max(status.staleness_mean, block.mean());
    status.staleness_max = std::max(status.staleness_max, static_cast<double>(block.max));
  }
  const WaitCount& waited = is.figures.waited;
  status.waiting_seconds = waited.seconds;
  status.waiting_share = std::clamp(waited.seconds / std::max(seconds_since(is.began), 1e-9), 0.0, 1.0);
  status.longest_wait_seconds = waited.longest;
  status.exchanges = waited.waits - waited.in_vain;
  status.exchanges_skipped = waited.in_vain;
  status.bytes_sent = is.figures.traffic.sent;
  status.bytes_received = is.figures.traffic.received;
  status.silent_seconds = now - member.heard;
  return status;
}

}  // namespace rubato
