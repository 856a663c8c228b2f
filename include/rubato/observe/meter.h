#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <string>

#include "rubato/replica/observer.h"

namespace rubato {

/// Lines of JSON appended to `metrics.jsonl`. Thread-safe. A line that cannot be written (full disk) is lost, the run is not; the
/// first loss is remembered.
class MetricsLog {
 public:
  /// Keeps whole lines of the first `keep` bytes: a resumed run goes on from there.
  MetricsLog(std::filesystem::path file, std::int64_t keep);
  void write(const std::string& json_line);
  /// Of the file so far.
  std::int64_t bytes() const;
  bool failed() const;

 private:
  mutable std::mutex mutex_;
  std::ofstream file_;
  std::int64_t bytes_ = 0;
  bool failed_ = false;
};

/// What the meter knows at one moment.
struct MeterReading {
  std::int64_t steps = 0, samples = 0;    ///< since the run began, however often it was resumed
  double time = 0;                        ///< of the training clock, at the last of these steps
  double loss = 0;                        ///< mean over the last window of batches
  double epoch_loss = 0;                  ///< mean over samples since `begin_epoch`
  std::optional<double> seconds_to_loss;  ///< time of the runtime's clock when a window first had the target loss
  std::optional<double> target_loss;      ///< which one that was
};

/// All that a meter knows: what a checkpoint keeps of it.
struct MeterState {
  MeterReading now;
  double clock = 0;  ///< seconds, of all runtimes that the run has had
  double window_loss = 0, window_begin = 0, epoch_loss = 0;
  std::int64_t window_steps = 0, window_samples = 0, epoch_samples = 0;
};

/// Counts batches, averages the loss, stops a run that diverges. Called by the roles that compute losses.
class StepMeter final : public StepObserver {
 public:
  static constexpr std::int64_t window = 50;  ///< batches per line of metrics

  /// Steps are logged there from now on; null: nowhere. Not while roles run.
  void write_to(MetricsLog* log) { log_ = log; }
  void step(const StepReport& report) override;
  void begin_epoch();
  /// Seconds of the runtime's clock in which nobody trained. Not while roles run.
  void leave_out(double seconds);
  /// The runtime's clock has come to `time`. Not while roles run.
  void advance(double time);
  /// Not while roles run.
  void watch_for(std::optional<double> target_loss) { state_.now.target_loss = target_loss; }
  MeterReading reading() const;
  /// `time`: of the runtime's clock.
  MeterState state(double time) const;
  /// Goes on from `state` with a runtime whose clock begins at 0. Not while roles run.
  void resume(const MeterState& state);

 private:
  MetricsLog* log_ = nullptr;
  mutable std::mutex mutex_;  ///< guards everything below
  MeterState state_;          ///< its clock: of earlier runtimes
};

}  // namespace rubato
