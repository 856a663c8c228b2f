#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/couplings/coupling.h"
#include "rubato/observe/bias_probe.h"
#include "rubato/schedules/schedule.h"

namespace rubato {

/// What of a job one process holds and executes.
struct Placement {
  enum Who {
    all,          ///< everything
    coordinator,  ///< the centre, if there is one
    worker,       ///< one replica, or one stage of it
  } who = all;
  int replica = 0;             ///< worker
  std::optional<int> stage;    ///< worker: the one stage of a staged schedule; nothing: the whole replica
  int parts = 1;               ///< processes that share one replica
  bool keeps_replicas = true;  ///< coordinator: holds the state of all replicas between segments
};

/// What a job is made from.
struct JobParts {
  ScheduleOptions schedule;
  CouplingOptions coupling;  ///< ranges and prefixes are filled in by the job
  StoreOptions store;
  StageOptions stage;  ///< replica r draws dropout masks from replica_seed(seed, r)
  std::vector<BlockCost> costs;
  WorkCosts work = {};
  std::vector<std::shared_ptr<const BatchMaker>> batches;  ///< one per replica
  std::vector<Shard> shards;                               ///< one per replica, or empty: each takes all of its batches
  std::int64_t prefetch = 0;
  std::int64_t probe_every = 0;  ///< batches of replica 0 between probes of its bias; 0: none
  Placement place;
};

/// All replicas of a run, their schedules and what ties them. Roles of replica r are named "rR/..." when there are several.
class Job final : public Restorable {
 public:
  /// `model` and `observer` outlive the job. UsageError where the parts cannot work together.
  Job(const Model& model, JobParts parts, StepObserver& observer);
  ~Job() override;

  int replicas() const { return static_cast<int>(members_.size()); }
  bool holds(int replica) const { return members_.at(static_cast<std::size_t>(replica)) != nullptr; }
  const WeightStore& store(int replica) const;
  /// Of what this process holds. Not during a segment, unless the caller is a role's or publishes as one.
  WeightStore& store(int replica);
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
  const WeightStore& evaluation_weights();
  /// Of all replicas together.
  StalenessCount staleness(int block) const;
  /// As Coupling::centre_staleness.
  std::optional<StalenessCount> centre_staleness(int block) const { return coupling_->centre_staleness(block); }
  bool finite() const;
  /// Of replica 0; nothing unless `JobParts::probe_every`.
  std::optional<BiasReport> bias() const;
  /// Of a single replica: its own digest. Of several: SHA-256 over theirs. Empty where nothing is computed.
  std::string digest() const;
  /// Of one replica that is here.
  std::string digest_of_replica(int replica) const { return store(replica).digest(); }
  /// The same from the digests of all replicas, in order.
  static std::string digest_of(const std::vector<std::string>& replicas);

  void save(torch::serialize::OutputArchive& archive) const override;
  /// Replicas that the archive does not hold begin as its first one is, or, where it holds none, with the centre's weights: call
  /// `renumber` next.
  void load(torch::serialize::InputArchive& archive) override;
  /// After `load`: the run stands at step `step`, which is `steps` more than when it was saved, because another number of
  /// replicas takes its batches.
  void renumber(std::int64_t steps, std::int64_t step);

  // Parts of a job that is spread over processes.

  /// The state of `replica`, or of the stage of it that is here.
  std::string save_part(int replica) const;
  /// What `save_part` has written in another process, for the blocks and stages that both hold. DataError if it does not fit.
  void load_part(int replica, const std::string& part);
  /// Where the replica's next batch is; what holds back and ends its source.
  BatchSource& source(int replica);

 private:
  struct Member;
  bool is_here(int replica) const;
  std::vector<BlockRange> ranges_here() const;
  std::unique_ptr<Member> make_member(int replica);
  void save_replica(torch::serialize::OutputArchive& archive, int replica) const;
  void load_replica(torch::serialize::InputArchive& archive, int replica, bool partial);
  ReplicaHooks& hooks_of(int replica);
  void leave(Context& me, int replica);
  const Model& model_;
  JobParts parts_;
  std::shared_ptr<StopTogether> together_ = std::make_shared<StopTogether>();
  std::unique_ptr<Coupling> coupling_;
  std::unique_ptr<BiasProbe> probe_;
  std::vector<std::unique_ptr<Member>> members_;
  std::int64_t begin_ = 0;
  std::vector<int> from_the_centre_;           ///< replicas that have not been loaded
  WeightStore* evaluation_weights_ = nullptr;  ///< null: has to be made again
};

/// Runs `batches` batches forward through `store`'s weights and publishes the mean of their statistics: after averaging, those of
/// the replicas do not fit any more. Not during a run.
void refresh_statistics(const Model& model, WeightStore& store, const BatchMaker& maker, const StageOptions& options,
                        int batches);

}  // namespace rubato
