#include "rubato/train/meter.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "rubato/train/files.h"

namespace rubato {
namespace {

/// Lines of `text` that tell of steps up to `last`.
std::string lines_up_to(const std::string& text, std::int64_t last) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.value("step", last + 1) <= last) kept += line + "\n";
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path file, std::int64_t from_step) {
  if (std::filesystem::exists(file)) write_atomically(file, lines_up_to(read_file(file), from_step));
  file_.open(file, std::ios::app);
  if (!file_) throw DataError("cannot write " + file.string());
}

void MetricsLog::write(const std::string& json_line) {
  const std::lock_guard lock(mutex_);
  file_ << json_line << '\n' << std::flush;
  if (file_) return;
  failed_ = true;
  file_.clear();
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
    ++now_.steps;
    now_.samples += report.samples;
    epoch_loss_ += report.loss * static_cast<double>(report.samples);
    epoch_samples_ += report.samples;
    window_loss_ += report.loss;
    window_samples_ += report.samples;
    ++window_steps_;
    now_.loss = window_loss_ / static_cast<double>(window_steps_);
    now_.epoch_loss = epoch_loss_ / static_cast<double>(epoch_samples_);
    if (window_steps_ < window) return;
    if (target_loss_ && now_.loss <= *target_loss_ && !now_.seconds_to_loss) now_.seconds_to_loss = report.time;
    const double seconds = report.time - window_begin_;
    line = nlohmann::ordered_json{{"step", report.batch + 1},
                                  {"time", report.time},
                                  {"train_loss", now_.loss},
                                  {"samples_per_second", seconds > 0 ? static_cast<double>(window_samples_) / seconds : 0}}
               .dump();
    window_loss_ = 0;
    window_steps_ = window_samples_ = 0;
    window_begin_ = report.time;
  }
  if (log_ != nullptr) log_->write(line);
}

void StepMeter::begin_epoch() {
  const std::lock_guard lock(mutex_);
  epoch_loss_ = 0;
  epoch_samples_ = 0;
}

MeterReading StepMeter::reading() const {
  const std::lock_guard lock(mutex_);
  return now_;
}

}  // namespace rubato
