#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rubato/model/task.h"
#include "rubato/model/weight_store.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

struct Model;
class ModulePool;
class ModuleInstance;

/// What a delayed backward pass computes with.
enum class StaleWeights {
  stashed,   ///< activations and weights of the forward pass: what the proofs assume
  live,      ///< activations of the forward pass, the newest weights: what the DDG authors' code does
  replayed,  ///< the forward pass is computed again from its input with the newest weights: Features Replay
};

/// Shape of what each block returns for one sample: the output of block i is N x activations[i].
using ActivationShapes = std::vector<std::vector<std::int64_t>>;

struct StageOptions {
  std::uint64_t seed = 1;  ///< of dropout masks
  StaleWeights stale_weights = StaleWeights::stashed;
  bool bf16 = false;           ///< forward under bfloat16 autocast; weights and updates stay float32
  bool channels_last = false;  ///< memory order of image activations
  torch::Device device = torch::kCPU;
  /// Set: nothing is computed. Tensors without content (libtorch's device "meta") of these shapes pass through the stages, so
  /// that everything else, messages and their sizes included, is as in a real run.
  std::shared_ptr<const ActivationShapes> dry_run = nullptr;
};

/// One trip of one batch through one stage, in flight. Holds the graph, the snapshot and the module instances until each block's
/// backward frees its part. Movable; belongs to one thread at a time.
class Pass {
 public:
  Pass() = default;
  std::int64_t batch() const { return batch_; }
  /// What the last block returned, without history: the input of the next stage. Empty once the backward pass has begun.
  const torch::Tensor& output() const { return output_; }
  /// What the stage was given; with the weights it is all that is needed to make this pass again.
  const torch::Tensor& input() const { return input_; }
  /// As read by the pass; a pass that waits to be replayed holds none.
  const Snapshot& weights(int local_block) const { return weights_.at(local_block); }
  bool empty() const { return batch_ < 0; }
  /// For a pass that will be replayed: lets go of the output once it has been handed on, so that the input is all that stays.
  void forget_output() { output_.reset(); }

 private:
  friend class Stage;
  struct BlockPass {
    std::shared_ptr<ModuleInstance> instance;
    torch::Tensor input, output;
  };

  std::int64_t batch_ = -1;
  torch::Tensor input_, output_;
  std::vector<Snapshot> weights_;  // `live` replaces them at backward, `replayed` has none before
  std::vector<BlockPass> blocks_;  // empty for a pass that will be replayed
};

/// Loss of one batch and where backward begins.
struct LossResult {
  double loss = 0;               ///< mean over the batch
  std::int64_t correct = 0;      ///< predictions that are right
  std::int64_t predictions = 0;  ///< 0: the task has no accuracy
  torch::Tensor grad_output;     ///< shaped like the output
};

/// Which gradients the backward pass through a block computes; leaving one out saves about half of its work.
enum class Wanted { both, input, parameters };

/// A contiguous range of blocks executed together. The only place that touches autograd.
///
/// Thread rules: any number of threads may call it at once, each with passes of its own. No call blocks on another beyond the
/// module pool's lock.
class Stage {
 public:
  /// Blocks [first, last) of `model`.
  Stage(const Model& model, int first, int last, const StageOptions& options);
  ~Stage();

  int first() const { return first_; }
  int last() const { return last_; }
  int size() const { return last_ - first_; }
  StaleWeights stale_weights() const { return options_.stale_weights; }

  /// Computes blocks first..last-1 on `input` (N x ...) with `weights` (one snapshot per block).
  /// `buffers_after`, if given, receives the buffers of each block as the pass left them.
  Pass forward(std::vector<Snapshot> weights, const torch::Tensor& input, std::int64_t batch,
               std::vector<std::vector<torch::Tensor>>* buffers_after = nullptr) const;

  /// Loss at the output of `pass`; only for the stage with the model's last block.
  LossResult loss(const Pass& pass, const torch::Tensor& target) const;

  /// `live`: makes block `local` of `pass` (counted from 0 in the stage) compute its backward with `weights`.
  void rebind(Pass& pass, int local, const Snapshot& weights) const;
  /// `replayed`: the pass of `batch` with this input, as it waits for its backward.
  Pass to_be_replayed(const torch::Tensor& input, std::int64_t batch) const;
  /// `replayed`: computes the whole pass again, with `weights`. Batch statistics are taken anew but not published a second time.
  void replay(Pass& pass, std::vector<Snapshot> weights) const;

  /// Backward through block `local`; to be called from the last block down to 0. `grad` holds the gradient with respect to the
  /// block's output and receives that with respect to its input (undefined below the model's first block). Returns one gradient
  /// per parameter, undefined where a parameter does not take part or is frozen (`requires_grad` of the prototype). Frees the
  /// block's part of the pass. What is not `wanted` is undefined.
  std::vector<torch::Tensor> backward(Pass& pass, int local, torch::Tensor& grad, Wanted wanted = Wanted::both) const;

 private:
  void run(Pass& pass, std::vector<std::vector<torch::Tensor>>* buffers_after) const;
  void run_dry(Pass& pass, std::vector<std::vector<torch::Tensor>>* buffers_after) const;
  torch::Tensor dry_output(const Pass& pass, int block) const;
  std::vector<torch::Tensor> dry_backward(const Pass& pass, int local, torch::Tensor& grad, Wanted wanted) const;
  torch::Tensor run_block(Pass& pass, int local, const torch::Tensor& input) const;

  int first_, last_;
  StageOptions options_;
  Task task_;
  std::vector<std::shared_ptr<ModulePool>> pools_;
};

/// What the blocks of `model` return, found out by running `input` (N x ...) through them.
ActivationShapes activation_shapes(const Model& model, const torch::Tensor& input);

StaleWeights parse_stale_weights(const std::string& name);
const char* name_of(StaleWeights stale_weights);

}  // namespace rubato
