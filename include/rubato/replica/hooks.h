#pragma once

#include <cstdint>
#include <vector>

#include "rubato/context/context.h"
#include "rubato/model/block_range.h"
#include "rubato/model/weight_store.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// The gradient of one block, ready to be applied.
struct BlockGradient {
  int block = -1;
  std::vector<torch::Tensor> gradients;  ///< one per parameter; undefined where it takes no part
  std::int64_t clock_read = 0;           ///< clock of the weights that its forward pass read
  std::int64_t step = -1;                ///< the replica's step that applies it
  std::int64_t batch = -1;               ///< the batch that it comes from; earlier than `step` in delayed methods
  double share = 1;                      ///< of a full batch: samples of `batch` / samples of a full one; (0, 1]
};

/// What a coupling does to one replica, at the three moments it sees: a step begins, a gradient is ready, a step ends. This one
/// does nothing: a replica on its own.
///
/// Called by the roles of the replica's schedule on their own threads, several at once. `step` is the replica's own clock: the
/// index of the batch that the step took. Every step that begins also ends, in the same segment, for each range of blocks that
/// the schedule steps together; the two calls may come from different roles.
class ReplicaHooks {
 public:
  virtual ~ReplicaHooks() = default;
  /// `weights` of `blocks` have just been read; the gradient is still to be computed. An exchange that is started here overlaps
  /// with the gradient.
  virtual void step_begins(Context& me, WeightStore& store, BlockRange blocks, const std::vector<Snapshot>& weights,
                           std::int64_t step);
  /// Applies `gradient` to `store`, or sees to it that it is applied where it belongs, before `step_ends` returns.
  virtual void gradient_ready(Context& me, WeightStore& store, BlockGradient gradient);
  /// The step's gradients of `blocks` have been handed over; finishes what `step_begins` started.
  virtual void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step);
};

/// Those of a replica without a coupling.
ReplicaHooks& no_hooks();

}  // namespace rubato
