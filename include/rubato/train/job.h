#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "rubato/couplings/coupling.h"
#include "rubato/schedules/schedule.h"
#include "rubato/train/bias_probe.h"
#include "rubato/train/checkpoint.h"

namespace rubato {

/// What a job is made from.
struct JobParts {
  ScheduleOptions schedule;
  CouplingOptions coupling;  ///< ranges and prefixes are filled in by the job
  StoreOptions store;
  StageOptions stage;  ///< replica r draws dropout masks from seed + r
  std::vector<BlockCost> costs;
  std::vector<std::shared_ptr<const BatchMaker>> batches;  ///< one per replica
  std::vector<Shard> shards;                               ///< one per replica, or empty: each takes all of its batches
  std::int64_t prefetch = 0;
  std::int64_t probe_every = 0;  ///< batches of replica 0 between probes of its bias; 0: none
};

/// All replicas of a run, their schedules and what ties them. Roles of replica r are named "rR/..." when there are several.
class Job final : public Restorable {
 public:
  /// `model` and `observer` outlive the job. UsageError where the parts cannot work together.
  Job(const Model& model, JobParts parts, StepObserver& observer);
  ~Job() override;

  int replicas() const { return static_cast<int>(members_.size()); }
  const WeightStore& store(int replica) const;
  Coupling& coupling() { return *coupling_; }

  /// Steps [begin, end) of every replica come next. Between segments.
  void open(std::int64_t begin, std::int64_t end);
  /// Ends the segment soon, at the same step for every replica; callable from a signal handler.
  void stop() { together_->stop(); }
  /// Steps that every replica has taken which was there all the time.
  std::int64_t position() const;
  std::vector<Role> roles();
  /// What roles do not see to when devices of a replica die or join.
  UnitEvents units();

  /// The weights that the run is about, as after the last segment, with batch-norm statistics that belong to them.
  const WeightStore& answer();
  /// Of all replicas together.
  StalenessCount staleness(int block) const;
  bool finite() const;
  /// Of replica 0; nothing unless `JobParts::probe_every`.
  std::optional<BiasReport> bias() const;
  /// Of a single replica: its own digest. Of several: SHA-256 over theirs. Empty where nothing is computed.
  std::string digest() const;

  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  struct Member;
  Tie& tie_of(int replica);
  void leave(Context& me, int replica);
  const Model& model_;
  JobParts parts_;
  std::shared_ptr<StopTogether> together_ = std::make_shared<StopTogether>();
  std::unique_ptr<Coupling> coupling_;
  std::unique_ptr<BiasProbe> probe_;
  std::vector<std::unique_ptr<Member>> members_;
  std::int64_t begin_ = 0;
  WeightStore* answer_ = nullptr;  ///< null: has to be made again
};

/// Runs `batches` batches forward through `store`'s weights and publishes the statistics: after averaging, those of the replicas
/// do not fit any more. Not during a run.
void refresh_statistics(const Model& model, WeightStore& store, const BatchMaker& maker, const StageOptions& options,
                        int batches);

}  // namespace rubato
