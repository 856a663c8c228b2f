#pragma once

#include <torch/torch.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "rubato/core/actor.h"
#include "rubato/model/model.h"
#include "rubato/model/optimizer.h"

namespace rubato {

/// Tensors that nobody writes any more, and how many publications preceded them.
struct TensorSet {
  std::vector<torch::Tensor> tensors;
  std::int64_t version = 0;
};
using TensorSetPtr = std::shared_ptr<const TensorSet>;

/// One block's weights at one moment. Parameters and buffers (batch-norm statistics) are published separately.
struct Snapshot {
  TensorSetPtr parameters, buffers;
};

/// Staleness of all updates of one block so far: version before the update minus version at which its gradient was evaluated.
struct StalenessCount {
  std::int64_t updates = 0, sum = 0, max = 0;
  double mean() const { return updates == 0 ? 0.0 : static_cast<double>(sum) / static_cast<double>(updates); }
};

struct StoreOptions {
  OptimizerOptions optimizer;
  /// Multiply a gradient of staleness s by 1 / (1 + s).
  bool scale_by_staleness = false;
  torch::Device device = torch::kCPU;
};

/// The weights of one replica, block by block, as immutable published versions.
///
/// Thread rules: every member may be called from any thread. Readers copy two pointers under a lock that is never held during
/// arithmetic. Writers of one block exclude each other; writers of different blocks do not. A published tensor is never
/// written; its memory is used again once nobody holds the snapshot.
class WeightStore {
 public:
  /// Starts at version 0 with a copy of the prototypes' weights.
  WeightStore(const Model& model, const StoreOptions& options);
  ~WeightStore();

  int block_count() const { return static_cast<int>(blocks_.size()); }
  const StoreOptions& options() const { return options_; }

  /// The newest published weights of `block`.
  Snapshot read(Actor& actor, int block) const;

  /// One optimizer step with `gradients` (one per parameter, in the block's order; an undefined one leaves its parameter alone),
  /// evaluated at version `version_read`. Returns the version that it published.
  std::int64_t apply(Actor& actor, int block, std::vector<torch::Tensor> gradients, std::int64_t version_read,
                     std::int64_t batch = -1);

  /// A step in which the block has no gradient yet (warm-up of a delayed method): the next version with the same weights. The
  /// optimizer's state does not move.
  std::int64_t skip(Actor& actor, int block);

  /// Publishes what a forward pass that read `read` did to the buffers, as a difference: statistics that others published
  /// meanwhile are kept.
  void merge_buffers(Actor& actor, int block, const TensorSetPtr& read, const std::vector<torch::Tensor>& after);

  StalenessCount staleness(int block) const;

  /// "block.parameter" for each parameter, then each buffer, of `block`.
  const std::vector<std::string>& parameter_names(int block) const;
  const std::vector<std::string>& buffer_names(int block) const;
  const std::string& block_name(int block) const;

  /// SHA-256 (hex) over name, type, shape and bytes of all published weights and buffers, in block order.
  std::string digest() const;

  /// Whether every published weight is finite.
  bool finite() const;

  /// Everything but the weights in flight: weights, buffers, versions, staleness and optimizer state. Not during a run.
  void save(torch::serialize::OutputArchive& archive) const;
  /// DataError when the archive does not fit the model or the optimizer.
  void load(torch::serialize::InputArchive& archive);

 private:
  struct BlockState;
  std::int64_t publish(Actor& actor, BlockState& state, std::shared_ptr<TensorSet> next, Event event);

  StoreOptions options_;
  std::vector<std::unique_ptr<BlockState>> blocks_;
};

}  // namespace rubato
