#pragma once

#include <torch/torch.h>

#include <memory>
#include <mutex>
#include <vector>

#include "rubato/model/model.h"
#include "rubato/model/weight_store.h"

namespace rubato {

/// One private copy of a block's module. Its buffers are its own, because a forward pass writes them.
class ModuleInstance {
 public:
  ModuleInstance(const Block& block, torch::Device device);
  /// Makes the module compute with `weights`, sharing their storage. Only between passes: a graph that this instance recorded
  /// would use the new weights in some operators and the old in others, silently.
  void bind_parameters(const Snapshot& weights);
  /// Copies `weights` into storage of the instance's own, hidden from autograd. A graph recorded earlier then goes on with the
  /// new weights in every operator, views of weights included: what `--stale-weights live` means.
  void overwrite_parameters(const Snapshot& weights);
  void bind_buffers(const Snapshot& weights);

  torch::nn::AnyModule module;
  std::vector<torch::Tensor> parameters, buffers;
};

/// Instances of one block, lent to passes in flight. Thread-safe.
class ModulePool : public std::enable_shared_from_this<ModulePool> {
 public:
  /// `overwritable`: instances keep storage of their own, so that `overwrite_parameters` may be called during a pass.
  ModulePool(Block block, torch::Device device, bool overwritable)
      : block_(std::move(block)), device_(device), overwritable_(overwritable) {}
  using Lease = std::shared_ptr<ModuleInstance>;
  /// An instance in training mode, bound to `weights`; goes back when the lease ends.
  Lease lend(const Snapshot& weights);
  /// How many instances exist: the largest number of passes that were in flight at once.
  std::size_t created() const;

 private:
  Block block_;
  torch::Device device_;
  bool overwritable_;
  mutable std::mutex mutex_;  ///< guards the two below
  std::vector<std::unique_ptr<ModuleInstance>> idle_;
  std::size_t created_ = 0;
};

}  // namespace rubato
