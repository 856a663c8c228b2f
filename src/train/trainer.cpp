#include "rubato/train/trainer.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "rubato/cluster/coordinator.h"
#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/core/read_file.h"
#include "rubato/cost/profile.h"
#include "rubato/io/files.h"
#include "rubato/io/folder_lock.h"
#include "rubato/job/processes.h"
#include "rubato/model/process.h"
#include "rubato/observe/event_file.h"
#include "rubato/observe/trace_figures.h"
#include "rubato/recording/recorder.h"
#include "rubato/train/replay.h"
#include "train/run_start.h"
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

/// Where a run stands when its batches are dealt among `replicas` from now on: as many samples have been taken, and the step that
/// some of them would be in is over, so that a run that has ended has ended for any number.
std::int64_t step_among(int replicas, const Progress& saved) {
  if (saved.replicas == replicas || saved.replicas < 1) return saved.step;
  return (saved.step * saved.replicas + replicas - 1) / replicas;
}

}  // namespace

Trainer::Trainer(Plan plan, TrainListener* listener) : plan_(std::move(plan)), listener_(listener) {
  if (!plan_.options.init_from.empty()) {
    std::vector<std::string> rejected;
    load_weights(find_weights(plan_.options.init_from, &rejected), plan_.model);
    for (const std::string& reason : rejected) note("passed over a damaged checkpoint: " + reason);
  }
  if (!plan_.dry_run()) data_ = digest_of(*plan_.data);
  job_ = std::make_unique<Job>(plan_.model, plan_.job(), meter_);
  name_folder();
  try {
    if (plan_.processes) execution_ = make_execution();  // others wait to be told how it went
    find_start();
    open_folder();
    if (!execution_) execution_ = make_execution();
  } catch (const std::exception& error) {
    const Failure failure = failure_of(error);
    if (execution_) execution_->refuse({failure.code, "refused", failure.sentence});
    throw;
  }
  const bool known_to_survivors = plan_.processes && plan_.processes->incarnation > 0;
  for (std::size_t block = 0; block < progress_.staleness.size() && !known_to_survivors; ++block) {
    const StalenessCount known = execution_->staleness(static_cast<int>(block)), &all = progress_.staleness[block];
    staleness_before_.push_back({all.updates - known.updates, all.sum - known.sum, all.max});
  }
  meter_.write_to(metrics_.get());
  meter_.watch_for(plan_.options.target_loss);
}

// Where a run begins: in which folder, and from which checkpoint. What cannot begin or go on is refused here; nothing is written.

void Trainer::name_folder() {
  TrainOptions& options = plan_.options;
  if (!options.resume.empty()) {
    folder_ = options.resume;
  } else {
    folder_ = options.run_dir.empty() ? new_run_folder(options) : fs::path(options.run_dir);
  }
  options.run_dir = folder_.string();
}

void Trainer::find_start() {
  if (plan_.options.resume.empty() && fs::exists(folder_ / "config.toml")) {
    throw UsageError(fmt::format("{} already holds a run: continue it with --resume {} or name another --run-dir",
                                 folder_.string(), folder_.string()));
  }
  if (plan_.options.resume.empty() && !plan_.processes) refuse_foreign_folder(folder_);
  check_names_are_free(folder_);
  if (!plan_.processes && !plan_.roles.delays.empty()) {
    for (const std::string& sentence : delays_of_nobody(plan_, job_->roles())) note(sentence);
  }
  lock_ = std::make_unique<FolderLock>(folder_);
  if (!plan_.options.resume.empty()) find_checkpoint();
  progress_.replicas = plan_.options.replicas;
  progress_.data = data_;
  progress_at_start_ = progress_;
  if (found_) resume();
}

void Trainer::note(const std::string& sentence) {
  if (listener_ != nullptr) listener_->note(sentence);
}

/// What the run goes on from; nothing, if it ended before its first checkpoint: then it begins again.
void Trainer::find_checkpoint() {
  std::vector<std::string> rejected;
  found_ = CheckpointFolder(folder_ / "checkpoint").newest(&rejected);
  if (!found_ && !rejected.empty()) {
    throw DataError(
        fmt::format("--resume {}: there is no complete checkpoint in it; of the newest: {}", folder_.string(), rejected.front()));
  }
  for (const std::string& reason : rejected) note("passed over a damaged checkpoint: " + reason);
  if (rejected.empty()) check_nothing_is_lost(folder_, found_ ? &*found_ : nullptr);
  if (!found_) return note(folder_.string() + " has no checkpoint yet: the run begins at its start");
  check_same_run(*found_);
  progress_ = found_->progress;
  progress_.step = step_among(plan_.options.replicas, found_->progress);
  if (progress_.tested_step == found_->progress.step) progress_.tested_step = progress_.step;
}

/// Refuses data and options that are not those of the checkpoint.
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
  const std::int64_t taken = step_among(plan_.options.replicas, found.progress);
  const bool another_length = saved.steps != plan_.options.steps || saved.epochs != plan_.options.epochs;
  if (another_length && plan_.total_steps < taken) {
    throw UsageError(
        fmt::format("--resume {}: the run has taken {} steps already, and is to end after {}: give more --steps or --epochs",
                    folder_.string(), taken, plan_.total_steps));
  }
  if (!found.progress.staleness.empty() && found.progress.staleness.size() != plan_.model.blocks.size()) {
    throw DataError(fmt::format("{} has figures of {} blocks, the model {} has {}: it is damaged",
                                (found.folder / "state.json").string(), found.progress.staleness.size(), plan_.options.model,
                                plan_.model.blocks.size()));
  }
  if (keeps_replicas(saved) && found.progress.replicas != plan_.options.replicas) {
    throw UsageError(fmt::format(
        "--resume {}: {} goes on with the number of replicas that the checkpoint has, {}, not with {}: take as many, or "
        "start a new run with --init-from {}",
        folder_.string(), saved.coupling, found.progress.replicas, plan_.options.replicas, folder_.string()));
  }
  if (!data_.empty() && found.progress.data != data_) {
    throw DataError(
        fmt::format("--resume {}: the data are not those that the run was trained with: give the same --data-dir, or start a new "
                    "run with --init-from {}",
                    folder_.string(), folder_.string()));
  }
}

void Trainer::resume() {
  CheckpointFolder::load(*found_, *job_);
  job_->renumber(progress_.step - found_->progress.step, progress_.step);
  if (progress_.seconds_to_target && !target_reached()) progress_.seconds_to_target.reset();  // it was another target's
  if (progress_.meter.now.target_loss != plan_.options.target_loss) progress_.meter.now.seconds_to_loss.reset();
  progress_.meter.now.target_loss = plan_.options.target_loss;
  meter_.resume(progress_.meter);
  epochs_begun_ = plan_.epochs_until(progress_.step);
  last_checkpoint_ = progress_.step;
}

std::unique_ptr<Execution> Trainer::make_execution() {
  if (plan_.processes) {
    return make_coordinator(plan_, *job_, meter_, [listener = listener_](const std::string& sentence) {
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

/// From here on something is written.
void Trainer::open_folder() {
  try {
    fs::create_directories(folder_ / "checkpoint");
  } catch (const fs::filesystem_error& error) {
    throw DataError("cannot make the run folder " + sentence_of(error));
  }
  lock_->sign();
  write_atomically(folder_ / "config.toml", saved_config());
  metrics_ = std::make_unique<MetricsLog>(folder_ / "metrics.jsonl", progress_.metrics_bytes);
  events_ = std::make_unique<EventFile>(folder_);
  if (plan_.options.record) recorder_ = std::make_unique<Recorder>(folder_ / recording_file);
}

std::string Trainer::saved_config() const {
  TrainOptions options = plan_.options;
  options.resume.clear();  // says how this process was started, not what runs
  return version_text("# ") + "\n\n" + to_toml(options);
}

void Trainer::request_stop() {
  stop_requested_ = true;
  execution_->stop();
}

std::int64_t Trainer::segment_end(std::int64_t step) const {
  const auto next_multiple = [step](std::int64_t every) { return (step / every + 1) * every; };
  if (plan_.dry_run()) return plan_.total_steps;
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
    if (checkpoint_is_due(progress_.step)) write_checkpoint();  // a request to stop may come when the last one is written
    status_ = stop_requested_ ? "interrupted" : "done";
    if (recorder_) recorder_->finish(execution_->digest());
    if (recorder_ && !plan_.runtime.simulated) write_timings();
    if (progress_.tested_step != progress_.step || !progress_.test) test();
    write_outputs();
  } catch (const DivergedError& error) {
    status_ = "diverged";
    progress_.test.reset();  // of weights that the run has left behind
    try {
      write_outputs();
    } catch (const std::exception& lost) {  // others wait to be told all the same
      if (listener_ != nullptr) listener_->note(error.what());
      const Failure failure = failure_of(lost);
      execution_->finish({failure.code, "failed", failure.sentence});
      throw;
    }
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
  if (plan_.dry_run()) return;
  progress_.test = evaluate(plan_.model, job_->evaluation_weights(), plan_.data->test, plan_.stage);
  progress_.tested_step = progress_.step;
}

void Trainer::run_segment(std::int64_t end) {
  if (stop_requested_) return;
  if (recorder_) recorder_->begin_segment(progress_.step);
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
    if (execution_->stop_was_asked()) stop_requested_ = true;
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

/// Of what all replicas together have taken: they may end short, or come late.
double Trainer::epochs() const {
  if (plan_.dry_run()) return plan_.epochs_at(progress_.step);
  return static_cast<double>(meter_.reading().samples) / static_cast<double>(plan_.data->train.size());
}

void Trainer::finish_part() {
  const double epochs = this->epochs();
  const double train_loss = meter_.reading().epoch_loss;
  if (plan_.epochs_until(progress_.step) > epochs_begun_) {
    epochs_begun_ = plan_.epochs_until(progress_.step);
    meter_.begin_epoch();
  }
  lock_->check();
  if (plan_.dry_run()) return;
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
    const StalenessCount stale = staleness(block);
    line["staleness"][block_name(block)] = {{"mean", stale.mean()}, {"max", stale.max}};
    events_->scalar("staleness/" + block_name(block), progress_.step, stale.mean());
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

StalenessCount Trainer::staleness(int block) const {
  StalenessCount count = execution_->staleness(block);
  const auto at = static_cast<std::size_t>(block);
  if (at >= staleness_before_.size()) return count;
  const StalenessCount& before = staleness_before_[at];
  return {count.updates + before.updates, count.sum + before.sum, std::max(count.max, before.max)};
}

void Trainer::write_checkpoint() {
  if (last_checkpoint_ == progress_.step || plan_.dry_run()) return;
  if (!job_->finite()) {
    throw DivergedError(
        fmt::format("training diverged: a weight is not finite after batch {}; try a smaller --lr, "
                    "--warmup-epochs or --clip-norm",
                    progress_.step));
  }
  lock_->check();
  progress_.meter = meter_.state(segment_ended_);
  progress_.metrics_bytes = metrics_->bytes();
  const bool over = progress_.step >= plan_.total_steps || target_reached();
  progress_.weights_digest = over ? execution_->digest() : "";
  progress_.staleness.clear();
  progress_.centre_staleness.clear();
  for (int block = 0; block < block_count(); ++block) {
    progress_.staleness.push_back(staleness(block));
    if (const auto centre = job_->centre_staleness(block)) progress_.centre_staleness.push_back(*centre);
  }
  CheckpointFolder(folder_ / "checkpoint")
      .write(progress_, job_->evaluation_weights(), *job_, saved_config(), plan_.data->train.vocabulary);
  last_checkpoint_ = progress_.step;
}

void Trainer::write_timings() {
  lock_->check();
  Timings timings = timings_.timings();
  timings.seconds = progress_.seconds;
  timings.steps = progress_.step;
  const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  timings.processors = plan_.roles.processors > 0 ? plan_.roles.processors : cores;
  write_atomically(folder_ / "timings.json", to_json(timings));
}

void Trainer::write_outputs() {
  lock_->check();
  if (plan_.options.trace) {
    write_atomically(folder_ / "trace.json", trace_.chrome_json());
    write_atomically(folder_ / "transcript.txt", trace_.transcript());
  }
  write_atomically(folder_ / "summary.json", summary());
  if (listener_ == nullptr) return;
  if (metrics_->failed()) listener_->note("some lines of metrics.jsonl could not be written");
  if (recorder_ && recorder_->failed()) listener_->note("the recording could not be written whole and cannot be replayed");
}

/// Of what the last checkpoint holds, where the run ends with it: workers that nobody waits for may be further by now.
std::string Trainer::summary() const {
  const bool saved = last_checkpoint_ == progress_.step && !progress_.staleness.empty() && status_ != "diverged";
  const MeterReading reading = saved ? progress_.meter.now : meter_.reading();
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
      {"epochs", epochs()},
      {"seconds", progress_.seconds},
      {"samples_per_second", nullptr},
      {"train_loss", nullptr},
      {"test_loss", nullptr},
      {"test_accuracy", nullptr},
      {"seconds_to_target", nullptr},
  };
  const double seconds = plan_.runtime.simulated ? progress_.virtual_seconds : progress_.seconds;
  if (seconds > 0) json["samples_per_second"] = static_cast<double>(reading.samples) / seconds;
  if (progress_.test) json["test_loss"] = progress_.test->loss;
  if (progress_.test && progress_.test->accuracy) json["test_accuracy"] = *progress_.test->accuracy;
  if (!plan_.dry_run()) {
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
  if (plan_.what_if) json["what_if"] = what_if_json(*plan_.what_if);
  if (plan_.options.trace) add_figures(json, figures_of(trace_), job_->store(0));
  if (const auto bias = job_->bias()) add_bias(json, *bias);
  if (progress_.seconds_to_target) json["seconds_to_target"] = *progress_.seconds_to_target;
  for (int block = 0; block < block_count(); ++block) {
    const auto at = static_cast<std::size_t>(block);
    const StalenessCount stale = saved ? progress_.staleness[at] : staleness(block);
    json["staleness"][block_name(block)] = {{"mean", stale.mean()}, {"max", stale.max}};
    std::optional<StalenessCount> centre = job_->centre_staleness(block);
    if (saved && at < progress_.centre_staleness.size()) centre = progress_.centre_staleness[at];
    if (centre) json["centre_staleness"][block_name(block)] = {{"mean", centre->mean()}, {"max", centre->max}};
  }
  json["peak_rss_bytes"] = peak_rss_bytes();
  json["weights_digest"] = saved && !progress_.weights_digest.empty() ? progress_.weights_digest : execution_->digest();
  json["build"] = build_json();
  json["host"] = host_info();
  return json.dump(2) + "\n";
}

std::unique_ptr<Trainer> train(const TrainOptions& options, const RuntimeChoice& runtime, TrainListener* listener) {
  auto trainer = std::make_unique<Trainer>(make_plan(options, runtime), listener);
  trainer->run();
  return trainer;
}

}  // namespace rubato
