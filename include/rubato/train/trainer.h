#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/context/event_counter.h"
#include "rubato/cost/timings.h"
#include "rubato/job/execution.h"
#include "rubato/job/plan.h"
#include "rubato/observe/evaluate.h"
#include "rubato/observe/meter.h"
#include "rubato/observe/trace.h"
#include "rubato/observe/training_clock.h"

namespace rubato {

class EventFile;
class FolderLock;
class Recorder;

/// Told how a run goes, on the thread that called `Trainer::run`, between segments.
class TrainListener {
 public:
  virtual ~TrainListener() = default;
  virtual void note(const std::string& sentence) = 0;  ///< a warning: a damaged checkpoint was passed over, ...
  /// After an epoch, or a part of one (`TrainOptions::evaluate_every`). Speed as Trainer::samples_per_second.
  virtual void tested(double epochs, double train_loss, const Evaluation& test, double samples_per_second) = 0;
};

/// One run: replicas, runtime, run folder. Made once, run once.
class Trainer {
 public:
  /// Makes the run folder, or opens it when `plan.options.resume` names it. `listener` may be null; it outlives the trainer.
  /// UsageError or DataError when the run cannot begin or go on; nothing is written then.
  Trainer(Plan plan, TrainListener* listener);
  ~Trainer();

  /// Trains, evaluates after every epoch, writes checkpoints, metrics and the summary. Throws DivergedError when the loss is not
  /// finite (the last good checkpoint stays) and DataError when the run folder cannot be written.
  void run();

  /// Ends the run soon: passes in flight finish or stay in flight, a checkpoint is written, `run` returns. May be called from a
  /// signal handler.
  void request_stop();
  bool stopped() const { return stop_requested_; }

  const std::filesystem::path& folder() const { return folder_; }
  const Plan& plan() const { return plan_; }
  MeterReading reading() const { return meter_.reading(); }
  /// Where this trainer began: all 0, unless it resumes a run.
  const Progress& at_start() const { return progress_at_start_; }
  /// Seconds that this trainer has trained: tests and checkpoints are left out where nobody trains meanwhile. From any thread.
  double training_seconds() const { return clock_.seconds(); }
  /// Of all that this trainer has trained, by the run's own clock: virtual time in the simulator. From any thread.
  double samples_per_second() const {
    const MeterReading now = meter_.reading();
    const MeterState& before = progress_at_start_.meter;
    const double seconds = plan_.runtime.simulated ? now.time - before.clock : training_seconds();
    return seconds > 0 ? static_cast<double>(now.samples - before.now.samples) / seconds : 0;
  }
  double virtual_seconds() const { return progress_.virtual_seconds; }
  const Trace& trace() const { return trace_; }
  Job& job() { return *job_; }

  /// The content of summary.json.
  std::string summary() const;

 private:
  void note(const std::string& sentence);
  void name_folder();
  void find_start();
  void find_checkpoint();
  void open_folder();
  void check_same_run(const CheckpointFolder::Found& found) const;
  std::string saved_config() const;
  void resume();
  std::unique_ptr<Execution> make_execution();
  void run_segment(std::int64_t end);
  std::string block_name(int block) const { return plan_.model.blocks.at(static_cast<std::size_t>(block)).name; }
  int block_count() const { return static_cast<int>(plan_.model.blocks.size()); }
  std::int64_t segment_end(std::int64_t step) const;
  bool test_is_due(std::int64_t end) const;
  bool checkpoint_is_due(std::int64_t end) const;
  void test();
  void finish_part();
  StalenessCount staleness(int block) const;
  void write_checkpoint();
  void write_timings();
  void write_outputs();
  bool target_reached() const;
  double epochs() const;

  Plan plan_;
  TrainListener* listener_;
  std::string data_;  ///< digest of the data; empty: nothing is computed
  std::filesystem::path folder_;
  std::unique_ptr<FolderLock> lock_;
  std::optional<CheckpointFolder::Found> found_;  ///< what this run goes on from
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<EventFile> events_;
  std::unique_ptr<Recorder> recorder_;
  StepMeter meter_;
  TrainingClock clock_;
  double segment_ended_ = 0;  ///< by the runtime's clock
  Trace trace_;
  TimingsMeter timings_;
  EventCounter event_count_;
  EventSinks events_of_roles_;
  std::unique_ptr<Job> job_;
  std::unique_ptr<Execution> execution_;
  Progress progress_, progress_at_start_;
  std::vector<StalenessCount> staleness_before_;  ///< of what the execution does not know of; per block
  std::int64_t last_checkpoint_ = -1, epochs_begun_ = 0;
  std::string status_ = "running";
  std::atomic<bool> stop_requested_{false};
};

/// Trains as `options` say and returns the finished trainer: the C++ API's shortest way.
std::unique_ptr<Trainer> train(const TrainOptions& options, const RuntimeChoice& runtime = {}, TrainListener* listener = nullptr);

}  // namespace rubato
