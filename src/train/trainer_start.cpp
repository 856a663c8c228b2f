#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cstdint>
#include <ctime>

#include "rubato/core/error.h"
#include "rubato/io/files.h"
#include "rubato/io/folder_lock.h"
#include "rubato/job/processes.h"
#include "rubato/train/trainer.h"

// Where a run begins: in which folder, and from which checkpoint. What cannot begin or go on is refused here; nothing is written.

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
  lock_ = std::make_unique<FolderLock>(folder_);
  if (!plan_.options.resume.empty()) find_checkpoint();
  progress_.replicas = plan_.options.replicas;
  progress_.data = data_;
  progress_at_start_ = progress_;
  if (found_) resume();
}

/// What the run goes on from; nothing, if it ended before its first checkpoint: then it begins again.
void Trainer::find_checkpoint() {
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
  meter_.resume(progress_.meter);
  epochs_begun_ = plan_.epochs_until(progress_.step);
  last_checkpoint_ = progress_.step;
}

}  // namespace rubato
