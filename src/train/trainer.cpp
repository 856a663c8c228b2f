#include "rubato/train/trainer.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/core/read_file.h"
#include "rubato/recording/recorder.h"
#include "rubato/train/event_file.h"
#include "rubato/train/files.h"
#include "rubato/train/process.h"
#include "rubato/train/profile.h"
#include "rubato/train/replay.h"
#include "rubato/train/trace_figures.h"
#include "train/folder_lock.h"
#include "train/home.h"
#include "train/summary_parts.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

fs::path new_run_folder(const TrainOptions& options) {
  const std::string stem =
      fmt::format("runs/{:%Y%m%d-%H%M%S}-{}-{}", fmt::localtime(std::time(nullptr)), options.schedule, options.model);
  fs::path folder = stem;
  for (int i = 2; fs::exists(folder); ++i) folder = stem + "-" + std::to_string(i);
  return folder;
}

/// Where a run stands when its batches are dealt among `replicas` from now on: as many samples have been taken.
std::int64_t step_among(int replicas, const Progress& saved) {
  if (saved.replicas == replicas || saved.replicas < 1) return saved.step;
  return saved.step * saved.replicas / replicas;
}

}  // namespace

Trainer::Trainer(Plan plan, TrainListener* listener) : plan_(std::move(plan)), listener_(listener) {
  if (!plan_.options.init_from.empty()) load_weights(find_weights(plan_.options.init_from), plan_.model);
  if (!plan_.hollow()) data_ = digest_of(*plan_.data);
  job_ = std::make_unique<Job>(plan_.model, plan_.job(), meter_);  // refuses what cannot work before anything is written
  open_folder();
  meter_.write_to(metrics_.get());
  meter_.watch_for(plan_.options.target_loss);
  execution_ = make_execution();
  if (found_) resume();
}

std::unique_ptr<Execution> Trainer::make_execution() {
  if (plan_.processes) {
    const auto make = has_free_membership(plan_.options, plan_.place.parts) ? make_free_home : make_fixed_home;
    return make(plan_, *job_, meter_, [listener = listener_](const std::string& sentence) {
      if (listener != nullptr) listener->note(sentence);
    });
  }
  RuntimeOptions roles = plan_.roles;
  if (plan_.options.trace) events_of_roles_.add(&trace_);
  if (plan_.options.record && !plan_.runtime.simulated) {
    const Profile profile = measure_profile(plan_.model, plan_.stage, plan_.store, plan_.batches->make(0), 3);
    write_atomically(folder_ / "profile.json", to_json(profile));
    events_of_roles_.add(&timings_);
  }
  if (plan_.runtime.simulated) events_of_roles_.add(&event_count_);
  roles.events = events_of_roles_.empty() ? nullptr : &events_of_roles_;
  roles.order = recorder_.get();
  return make_local_execution(*job_, make_runtime(plan_, roles));
}

Trainer::~Trainer() = default;

void Trainer::open_folder() {
  TrainOptions& options = plan_.options;
  if (options.resume.empty()) {
    folder_ = options.run_dir.empty() ? new_run_folder(options) : fs::path(options.run_dir);
    if (fs::exists(folder_ / "config.toml")) {
      throw UsageError(fmt::format("{} already holds a run: continue it with --resume {} or name another --run-dir",
                                   folder_.string(), folder_.string()));
    }
  } else {
    folder_ = options.resume;
  }
  try {
    fs::create_directories(folder_ / "checkpoint");
  } catch (const fs::filesystem_error& error) {
    throw DataError("cannot make the run folder " + sentence_of(error));
  }
  lock_ = std::make_unique<FolderLock>(folder_);
  if (!options.resume.empty()) open_resumed_folder();
  progress_.replicas = options.replicas;
  progress_.data = data_;
  progress_at_start_ = progress_;
  options.run_dir = folder_.string();
  write_atomically(folder_ / "config.toml", saved_config());
  metrics_ = std::make_unique<MetricsLog>(folder_ / "metrics.jsonl", progress_.metrics_bytes);
  events_ = std::make_unique<EventFile>(folder_);
  if (options.record) recorder_ = std::make_unique<Recorder>(folder_ / recording_file);
}

/// What the run goes on from; nothing, if it ended before its first checkpoint: then it begins again.
void Trainer::open_resumed_folder() {
  std::vector<std::string> rejected;
  found_ = CheckpointFolder(folder_ / "checkpoint").newest(&rejected);
  const auto note = [&](const std::string& sentence) {
    if (listener_ != nullptr) listener_->note(sentence);
  };
  if (!found_ && !rejected.empty()) {
    throw DataError(
        fmt::format("--resume {}: there is no complete checkpoint in it; of the newest: {}", folder_.string(), rejected.front()));
  }
  for (const std::string& reason : rejected) note("passed over a damaged checkpoint: " + reason);
  if (!found_) return note(folder_.string() + " has no checkpoint yet: the run begins at its start");
  check_same_run(*found_);
  progress_ = found_->progress;
  progress_.step = step_among(plan_.options.replicas, found_->progress);
  if (progress_.tested_step == found_->progress.step) progress_.tested_step = progress_.step;
}

/// Refuses data and options that are not those of the checkpoint, before anything is written.
void Trainer::check_same_run(const CheckpointFolder::Found& found) const {
  const std::string file = (found.folder / "config.toml").string();
  const TrainOptions saved = from_toml(read_file(file), file);
  const auto replicas = saved.replicas == plan_.options.replicas ? OtherReplicas::refused : OtherReplicas::allowed;
  if (const auto flag = first_difference(saved, plan_.options, replicas)) {
    throw UsageError(fmt::format(
        "--resume {}: its config.toml was changed: '{}' is not what the run was trained with ({}); take that back, or "
        "start a new run with --init-from {}",
        folder_.string(), *flag, file, folder_.string()));
  }
  if (!data_.empty() && found.progress.data != data_) {
    throw DataError(
        fmt::format("--resume {}: the data are not those that the run was trained with: give the same --data-dir, or start a new "
                    "run with --init-from {}",
                    folder_.string(), folder_.string()));
  }
}

std::string Trainer::saved_config() const {
  TrainOptions options = plan_.options;
  options.resume.clear();  // says how this process was started, not what runs
  return version_text("# ") + "\n\n" + to_toml(options);
}

void Trainer::resume() {
  CheckpointFolder::load(*found_, *job_);
  job_->renumber(progress_.step - found_->progress.step, progress_.step);
  meter_.resume(progress_.meter);
  epochs_begun_ = plan_.epochs_until(progress_.step);
  last_checkpoint_ = progress_.step;
}

void Trainer::request_stop() {
  stop_requested_ = true;
  execution_->stop();
}

std::int64_t Trainer::segment_end(std::int64_t step) const {
  const auto next_multiple = [step](std::int64_t every) { return (step / every + 1) * every; };
  if (plan_.hollow()) return plan_.total_steps;
  std::int64_t end = std::min(plan_.total_steps, next_multiple(plan_.test_every));
  for (const std::int64_t every : {plan_.options.checkpoint_every, plan_.options.evaluate_every}) {
    if (every > 0) end = std::min(end, next_multiple(every));
  }
  return end;
}

void Trainer::run() {
  try {
    if (last_checkpoint_ < 0 && plan_.options.checkpoint_every >= 0) write_checkpoint();
    while (progress_.step < plan_.total_steps && !stop_requested_ && !target_reached()) {
      const std::int64_t end = segment_end(progress_.step);
      run_segment(end);
      if (progress_.step >= end && test_is_due(end)) finish_part();
      if (checkpoint_is_due(end)) write_checkpoint();
    }
    status_ = stop_requested_ ? "interrupted" : "done";
    if (recorder_) recorder_->finish(execution_->digest());
    if (recorder_ && !plan_.runtime.simulated) write_timings();
    if (progress_.tested_step != progress_.step || !progress_.test) test();
    write_outputs();
  } catch (const DivergedError& error) {
    status_ = "diverged";
    progress_.test.reset();  // of weights that the run has left behind
    write_outputs();
    execution_->finish({error.code(), status_, error.what()});
    throw;
  } catch (const std::exception& error) {
    const Failure failure = failure_of(error);
    execution_->finish({failure.code, "failed", failure.sentence});
    throw;
  }
  execution_->finish({stop_requested_ ? ExitCode::interrupted : ExitCode::ok, status_, ""});
}

/// `end`: of the segment; replicas that do not stop for a test may be further.
bool Trainer::test_is_due(std::int64_t end) const {
  const auto ends = [end](std::int64_t every) { return every > 0 && end % every == 0; };
  return ends(plan_.test_every) || ends(plan_.options.evaluate_every) || progress_.step >= plan_.total_steps;
}

bool Trainer::checkpoint_is_due(std::int64_t end) const {
  if (progress_.step >= plan_.total_steps || stop_requested_ || target_reached()) return true;
  const std::int64_t every = plan_.options.checkpoint_every;
  return every >= 0 && (end % plan_.test_every == 0 || (every > 0 && end % every == 0));
}

void Trainer::test() {
  if (plan_.hollow()) return;
  progress_.test = evaluate(plan_.model, job_->answer(), plan_.data->test, plan_.stage);
  progress_.tested_step = progress_.step;
}

void Trainer::run_segment(std::int64_t end) {
  if (recorder_) recorder_->begin_segment(progress_.step);
  if (stop_requested_) return;
  const double begin = execution_->now();
  if (execution_->pauses_between_segments()) meter_.leave_out(begin - segment_ended_);
  clock_.start();
  const auto account = [&] {
    segment_ended_ = execution_->now();
    meter_.advance(segment_ended_);
    const bool last = stop_requested_ || progress_.step >= plan_.total_steps;
    if (last || execution_->pauses_between_segments()) clock_.stop();
    progress_.seconds = progress_at_start_.seconds + clock_.seconds();
    if (plan_.runtime.simulated) progress_.virtual_seconds += segment_ended_ - begin;
  };
  try {
    progress_.step = execution_->run(progress_.step, end);
  } catch (...) {
    progress_.step = std::max(progress_.step, job_->position());
    account();
    throw;
  }
  account();
  if (recorder_) recorder_->end_segment(progress_.step);
  if (progress_.step < end && !stop_requested_) {
    throw DataError(fmt::format("no replica is left after {:.3g} s: every one of them has lost a device", execution_->now()));
  }
}

void Trainer::finish_part() {
  const double epochs = plan_.epochs_at(progress_.step);
  const double train_loss = meter_.reading().epoch_loss;
  if (plan_.epochs_until(progress_.step) > epochs_begun_) {
    epochs_begun_ = plan_.epochs_until(progress_.step);
    meter_.begin_epoch();
  }
  if (plan_.hollow()) return;
  test();
  if (!progress_.seconds_to_target && target_reached()) {
    progress_.seconds_to_target = plan_.runtime.simulated ? progress_.virtual_seconds : progress_.seconds;
  }
  nlohmann::ordered_json line = {{"step", progress_.step},
                                 {"epoch", epochs},
                                 {"seconds", progress_.seconds},
                                 {"train_loss", train_loss},
                                 {"test_loss", progress_.test->loss},
                                 {"test_accuracy", nullptr}};
  if (progress_.test->accuracy) line["test_accuracy"] = *progress_.test->accuracy;
  if (plan_.runtime.simulated) line["virtual_seconds"] = progress_.virtual_seconds;
  for (int block = 0; block < block_count(); ++block) {
    const StalenessCount staleness = execution_->staleness(block);
    line["staleness"][block_name(block)] = {{"mean", staleness.mean()}, {"max", staleness.max}};
    events_->scalar("staleness/" + block_name(block), progress_.step, staleness.mean());
    if (const auto centre = job_->centre_staleness(block)) {
      line["centre_staleness"][block_name(block)] = {{"mean", centre->mean()}, {"max", centre->max}};
      events_->scalar("centre_staleness/" + block_name(block), progress_.step, centre->mean());
    }
  }
  metrics_->write(line.dump());
  events_->scalar("loss/train", progress_.step, train_loss);
  events_->scalar("loss/test", progress_.step, progress_.test->loss);
  if (progress_.test->accuracy) events_->scalar("accuracy/test", progress_.step, *progress_.test->accuracy);
  execution_->tell(train_loss, progress_.test->accuracy);
  if (listener_ == nullptr) return;
  listener_->tested(epochs, train_loss, *progress_.test, samples_per_second());
}

bool Trainer::target_reached() const {
  return plan_.options.target_accuracy && progress_.test && progress_.test->accuracy &&
         *progress_.test->accuracy >= *plan_.options.target_accuracy;
}

void Trainer::write_checkpoint() {
  if (last_checkpoint_ == progress_.step || plan_.hollow()) return;
  if (!job_->finite()) {
    throw DivergedError(
        fmt::format("training diverged: a weight is not finite after batch {}; try a smaller --lr, "
                    "--warmup-epochs or --clip-norm",
                    progress_.step));
  }
  progress_.meter = meter_.state(segment_ended_);
  progress_.metrics_bytes = metrics_->bytes();
  CheckpointFolder(folder_ / "checkpoint").write(progress_, job_->answer(), *job_, saved_config(), plan_.data->train.vocabulary);
  last_checkpoint_ = progress_.step;
}

void Trainer::write_timings() {
  Timings timings = timings_.timings();
  timings.seconds = progress_.seconds;
  timings.steps = progress_.step;
  const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  timings.processors = plan_.roles.processors > 0 ? plan_.roles.processors : cores;
  write_atomically(folder_ / "timings.json", to_json(timings));
}

void Trainer::write_outputs() {
  if (plan_.options.trace) {
    write_atomically(folder_ / "trace.json", trace_.chrome_json());
    write_atomically(folder_ / "transcript.txt", trace_.transcript());
  }
  write_atomically(folder_ / "summary.json", summary());
  if (listener_ == nullptr) return;
  if (metrics_->failed()) listener_->note("some lines of metrics.jsonl could not be written");
  if (recorder_ && recorder_->failed()) listener_->note("the recording could not be written whole and cannot be replayed");
}

std::string Trainer::summary() const {
  const MeterReading reading = meter_.reading();
  nlohmann::ordered_json json = {
      {"status", status_},
      {"schedule", plan_.options.schedule},
      {"coupling", plan_.options.coupling},
      {"replicas", plan_.options.replicas},
      {"runtime", execution_->kind()},
      {"model", plan_.options.model},
      {"data", plan_.options.data},
      {"seed", plan_.options.seed},
      {"steps", progress_.step},
      {"epochs", plan_.epochs_at(progress_.step)},
      {"seconds", progress_.seconds},
      {"samples_per_second", nullptr},
      {"train_loss", nullptr},
      {"test_loss", nullptr},
      {"test_accuracy", nullptr},
      {"seconds_to_target", nullptr},
  };
  const double seconds = plan_.runtime.simulated ? progress_.virtual_seconds : progress_.seconds;
  if (seconds > 0) json["samples_per_second"] = static_cast<double>(reading.samples) / seconds;
  if (progress_.test) {
    json["test_loss"] = progress_.test->loss;
    if (progress_.test->accuracy) json["test_accuracy"] = *progress_.test->accuracy;
  }
  if (!plan_.hollow()) {
    json["last_train_loss"] = nullptr;
    if (reading.steps > 0) {
      json["train_loss"] = reading.epoch_loss;
      json["last_train_loss"] = reading.loss;
    }
  }
  if (plan_.options.target_loss) {
    json["seconds_to_loss"] = nullptr;
    if (reading.seconds_to_loss) json["seconds_to_loss"] = *reading.seconds_to_loss;
  }
  if (plan_.runtime.simulated) {
    json["virtual_seconds"] = progress_.virtual_seconds;
    json["events"] = event_count_.count();
    json["simulation"] = simulation_json(plan_.runtime);
  }
  if (const auto& what_if = plan_.what_if) {
    json["what_if"] = {{"recorded_seconds", what_if->recorded_seconds},
                       {"recorded_steps", what_if->recorded_steps},
                       {"predicted_seconds", what_if->predicted_seconds},
                       {"error", what_if->error()}};
  }
  if (plan_.options.trace) add_figures(json, figures_of(trace_), job_->store(0));
  if (const auto bias = job_->bias()) add_bias(json, *bias);
  if (progress_.seconds_to_target) json["seconds_to_target"] = *progress_.seconds_to_target;
  for (int block = 0; block < block_count(); ++block) {
    const StalenessCount staleness = execution_->staleness(block);
    json["staleness"][block_name(block)] = {{"mean", staleness.mean()}, {"max", staleness.max}};
    if (const auto centre = job_->centre_staleness(block)) {
      json["centre_staleness"][block_name(block)] = {{"mean", centre->mean()}, {"max", centre->max}};
    }
  }
  json["peak_rss_bytes"] = peak_rss_bytes();
  json["weights_digest"] = execution_->digest();
  const BuildInfo& build = build_info();
  json["build"] = {{"rubato", build.version}, {"libtorch", build.libtorch}, {"compiler", build.compiler},
                   {"type", build.type},      {"platform", build.platform}, {"commit", build.commit}};
  json["host"] = host_info();
  return json.dump(2) + "\n";
}

std::unique_ptr<Trainer> train(const TrainOptions& options, const RuntimeChoice& runtime, TrainListener* listener) {
  auto trainer = std::make_unique<Trainer>(make_plan(options, runtime), listener);
  trainer->run();
  return trainer;
}

}  // namespace rubato
