#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "rubato/context/actor.h"
#include "rubato/data/dataset.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// Batch number `index` of a run (0-based, counted over epochs). Its content is a function of (seed, index) alone.
struct Batch {
  std::int64_t index = -1;
  std::int64_t epoch = 0;
  torch::Tensor input;   ///< float, B x C x H x W, normalised; or int64, B x length
  torch::Tensor target;  ///< int64, B or B x length
};

struct BatchOptions {
  std::int64_t batch_size = 128;  ///< samples per batch, > 0; the last batch of an epoch may be shorter
  std::uint64_t seed = 1;
  bool shuffle = true;
  bool augment = false;       ///< images: random horizontal flip and crop after padding by 4 pixels
  std::int64_t prefetch = 4;  ///< batches prepared ahead by a thread of the source; 0: prepared by the caller
  bool dry_run = false;       ///< batches of the right shapes without content (libtorch's device "meta"); no sample is read
};

/// Makes batches: which samples (shuffled by (seed, epoch)), augmented by (seed, epoch, sample), scaled and normalised.
/// A pure function of its arguments; callable from any thread. Pixels that the crop brings in from outside are black
/// before normalisation, like the raw value 0. Makes no parallel torch call, so it uses one core whatever the number of
/// threads.
class BatchMaker {
 public:
  /// UsageError for options or tensors that the data set cannot be batched with.
  BatchMaker(std::shared_ptr<const Dataset> data, BatchOptions options);
  std::int64_t batches_per_epoch() const;
  const BatchOptions& options() const { return options_; }
  /// Batch `index` >= 0 of the run.
  Batch make(std::int64_t index) const;
  /// Samples of batch `index`, in order.
  std::vector<std::int64_t> samples(std::int64_t index) const;

 private:
  using Permutation = std::shared_ptr<const std::vector<std::int64_t>>;
  Permutation permutation(std::int64_t epoch) const;
  Permutation shuffled(std::int64_t epoch) const;
  torch::Tensor images(const std::vector<std::int64_t>& samples, std::int64_t epoch) const;
  Batch dry_run_batch(std::int64_t index) const;

  std::shared_ptr<const Dataset> data_;
  BatchOptions options_;
  std::vector<std::array<float, 256>> tables_;  ///< per channel: the normalised value of each raw pixel value
  mutable std::mutex mutex_;                    ///< guards the cached permutation
  mutable std::int64_t cached_epoch_ = -1;
  mutable Permutation cached_;
};

class BatchSource;

/// Which batches of a maker one replica takes when `count` replicas share its data: number `index`, `index` + `count`, ...
struct Shard {
  std::int64_t index = 0, count = 1;
};

/// Ends the segments of the sources of several replicas together: after `stop` every source goes on up to the furthest batch that
/// any of them has handed out, so that replicas which wait for each other have taken equally many steps.
class StopTogether {
 public:
  /// Callable from a signal handler.
  void stop() { stopped_ = true; }

 private:
  friend class BatchSource;
  std::mutex mutex_;  ///< guards what follows and the position of every member
  std::vector<const BatchSource*> members_;
  std::int64_t furthest_ = -1;  ///< -1: not stopped yet
  std::atomic<bool> stopped_{false};
};

/// Hands each batch of a segment [next index, end) to exactly one caller, in order of index. Thread-safe; prepared
/// ahead by one thread of its own, so that loading stays off the compute threads.
class BatchSource {
 public:
  /// Batch i of this source is batch i * shard.count + shard.index of `maker`. `together`: other sources to stop with. `name`: in
  /// events, unique in a run.
  explicit BatchSource(std::shared_ptr<const BatchMaker> maker, std::int64_t prefetch = 4, Shard shard = {},
                       std::shared_ptr<StopTogether> together = nullptr, std::string name = {});
  /// Waits for the batch that is being prepared. Nobody may be inside `next`.
  ~BatchSource();

  /// Starts (or continues) handing out batches from `begin` up to, not including, `end`; undoes `stop`. Call it between
  /// segments, while nobody is inside `next`.
  void open(std::int64_t begin, std::int64_t end);
  /// The next batch, or nothing at the end of the segment or after `stop`. The index is taken at `actor`'s ordering
  /// point; an event whose batch is -1 there says that none was left. Rethrows what went wrong while the batch was
  /// prepared.
  std::optional<Batch> next(Actor& actor);
  /// No batch is handed out after this, except one whose index is taken already; callable from a signal-watching
  /// thread.
  void stop() { together_->stop(); }
  /// Hands out nothing until `end_at`, and returns the index of the first batch not handed out yet.
  std::int64_t hold();
  /// Goes on after `hold`; the segment ends at `end`, if not earlier.
  void end_at(std::int64_t end);
  /// Samples of a full batch.
  std::int64_t batch_size() const { return maker_->options().batch_size; }
  /// Index of the first batch not handed out yet: where a resumed run goes on.
  std::int64_t position() const;
  /// Goes on where the furthest of the sources that stop together is: for a replica that joins later.
  void catch_up();

 private:
  class Prefetcher;
  std::int64_t take_index();
  Batch make(std::int64_t index) const;

  std::shared_ptr<const BatchMaker> maker_;
  Shard shard_;
  std::string name_;
  std::shared_ptr<StopTogether> together_;
  std::unique_ptr<Prefetcher> prefetcher_;  ///< none: the caller prepares
  std::int64_t position_ = 0, end_ = 0;     ///< guarded by together_->mutex_
  bool held_ = false;                       ///< guarded by together_->mutex_
  std::condition_variable released_;
};

}  // namespace rubato
