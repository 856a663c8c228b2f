#include "rubato/observe/meter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "rubato/io/files.h"

namespace rubato {
namespace {

/// The longest beginning of `text` that is made of whole lines and not longer than `most`.
std::string whole_lines(const std::string& text, std::int64_t most) {
  const auto size = std::min(text.size(), static_cast<std::size_t>(std::max<std::int64_t>(0, most)));
  const auto end = text.rfind('\n', size == 0 ? 0 : size - 1);
  return size == 0 || end == std::string::npos ? "" : text.substr(0, end + 1);
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path file, std::int64_t keep) {
  if (std::filesystem::exists(file)) {
    const std::string kept = whole_lines(read_file(file), keep);
    write_atomically(file, kept);
    bytes_ = static_cast<std::int64_t>(kept.size());
  }
  file_.open(file, std::ios::app);
  if (!file_) throw DataError("cannot write " + file.string());
}

void MetricsLog::write(const std::string& json_line) {
  const std::lock_guard lock(mutex_);
  file_ << json_line << '\n' << std::flush;
  if (file_) {
    bytes_ += static_cast<std::int64_t>(json_line.size()) + 1;
    return;
  }
  failed_ = true;
  file_.clear();
}

std::int64_t MetricsLog::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

bool MetricsLog::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}

void StepMeter::step(const StepReport& report) {
  if (!std::isfinite(report.loss)) {
    throw DivergedError(
        fmt::format("training diverged: the loss of batch {} is {}; try a smaller --lr, --warmup-epochs or --clip-norm",
                    report.batch, report.loss));
  }
  std::string line;
  {
    const std::lock_guard lock(mutex_);
    MeterState& s = state_;
    const double time = s.clock + report.time;
    s.now.time = std::max(s.now.time, time);
    ++s.now.steps;
    s.now.samples += report.samples;
    s.epoch_loss += report.loss * static_cast<double>(report.samples);
    s.epoch_samples += report.samples;
    s.window_loss += report.loss;
    s.window_samples += report.samples;
    ++s.window_steps;
    s.now.loss = s.window_loss / static_cast<double>(s.window_steps);
    s.now.epoch_loss = s.epoch_loss / static_cast<double>(s.epoch_samples);
    if (s.window_steps < window) return;
    if (s.now.target_loss && s.now.loss <= *s.now.target_loss && !s.now.seconds_to_loss) s.now.seconds_to_loss = time;
    const double seconds = time - s.window_begin;
    line = nlohmann::ordered_json{{"step", report.batch + 1},
                                  {"time", time},
                                  {"train_loss", s.now.loss},
                                  {"samples_per_second", seconds > 0 ? static_cast<double>(s.window_samples) / seconds : 0}}
               .dump();
    s.window_loss = 0;
    s.window_steps = s.window_samples = 0;
    s.window_begin = time;
  }
  if (log_ != nullptr) log_->write(line);
}

void StepMeter::begin_epoch() {
  const std::lock_guard lock(mutex_);
  state_.epoch_loss = 0;
  state_.epoch_samples = 0;
}

void StepMeter::leave_out(double seconds) {
  const std::lock_guard lock(mutex_);
  state_.clock -= seconds;
}

void StepMeter::advance(double time) {
  const std::lock_guard lock(mutex_);
  state_.now.time = std::max(state_.now.time, state_.clock + time);
}

MeterReading StepMeter::reading() const {
  const std::lock_guard lock(mutex_);
  return state_.now;
}

MeterState StepMeter::state(double time) const {
  const std::lock_guard lock(mutex_);
  MeterState state = state_;
  state.clock += time;
  return state;
}

void StepMeter::resume(const MeterState& state) {
  const std::lock_guard lock(mutex_);
  state_ = state;
}

}  // namespace rubato
