#include "progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>

namespace rubato::app {
namespace {

std::string duration(double seconds) {
  const auto whole = static_cast<long>(seconds + 0.5);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

ProgressLine::ProgressLine(const Trainer& trainer, bool wanted) {
  if (!wanted || isatty(STDERR_FILENO) == 0) return;
  thread_ = std::jthread([&trainer](std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any woken;
    std::unique_lock lock(mutex);
    while (!woken.wait_for(lock, stop, std::chrono::milliseconds(500), [&] { return stop.stop_requested(); })) {
      draw(trainer);
    }
    clear();
  });
}

ProgressLine::~ProgressLine() = default;

void ProgressLine::clear() {
  if (isatty(STDERR_FILENO) != 0) std::fputs("\r\033[K", stderr);
}

void ProgressLine::draw(const Trainer& trainer) {
  const double seconds = trainer.training_seconds();
  const MeterReading now = trainer.reading(), before = trainer.at_start().meter.now;
  const std::int64_t replicas = trainer.plan().options.replicas, done = now.steps - before.steps;
  const std::int64_t step = trainer.at_start().step * replicas + done, total = trainer.plan().total_steps * replicas;
  const double left = done > 0 ? static_cast<double>(total - step) * seconds / static_cast<double>(done) : 0;
  const std::string line =
      fmt::format("\r\033[K{} step {}/{}  loss {:.4f}  {:.0f} samples/s{}  {} left{}", trainer.plan().options.schedule, step,
                  total, now.loss, trainer.samples_per_second(), trainer.plan().runtime.simulated ? " of virtual time" : "",
                  duration(left), trainer.stopped() ? "  (stopping)" : "");
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace rubato::app
