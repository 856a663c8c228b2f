#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "rubato/context/actor.h"
#include "rubato/model/optimizer.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

struct Model;

/// Tensors that nobody writes any more.
struct TensorSet {
  std::vector<torch::Tensor> tensors;
  std::int64_t version = 0;  ///< publications that preceded them
  std::int64_t clock = 0;    ///< of these, steps of the optimizer (and steps that a delayed method skipped)
};
using TensorSetPtr = std::shared_ptr<const TensorSet>;

/// One block's weights at one moment. Parameters and buffers (batch-norm statistics) are published separately.
struct Snapshot {
  TensorSetPtr parameters, buffers;
};

/// Staleness of all updates of one block so far: clock before the update minus clock of the weights that the forward pass of its
/// gradient read. What a coupling publishes in between is not counted.
struct StalenessCount {
  std::int64_t updates = 0, sum = 0, max = 0;
  double mean() const { return updates == 0 ? 0.0 : static_cast<double>(sum) / static_cast<double>(updates); }
};

/// What the weights after each step are averaged to, for evaluation (Polyak and Juditsky 1992).
enum class Averaging {
  none,
  mean,    ///< ASGD: of all iterates so far, z += (w - z) / (t + 1)
  moving,  ///< MVASGD: z += rate (w - z)
};
/// UsageError with the nearest known name.
Averaging parse_averaging(const std::string& name);

struct AveragingOptions {
  Averaging kind = Averaging::none;
  double rate = 0.001;  ///< moving; (0, 1]
};

struct StoreOptions {
  OptimizerOptions optimizer;
  AveragingOptions averaging;
  /// Multiply a gradient of staleness s by 1 / (1 + s).
  bool scale_by_staleness = false;
  /// Optimizer steps here in one step of a replica: more than one at a centre that steps for several. The learning rate's
  /// schedule goes by steps of a replica.
  std::int64_t updates_per_step = 1;
  torch::Device device = torch::kCPU;
  std::string name = {};  ///< in events: "r0", "centre"; unique in a run
  /// Blocks [first, second) whose weights are held here; the others have no content (libtorch's device "meta"). Nothing: all.
  std::optional<std::pair<int, int>> held = std::nullopt;
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
  /// evaluated at weights whose clock was `clock_read`. Returns the version that it published.
  std::int64_t apply(Actor& actor, int block, std::vector<torch::Tensor> gradients, std::int64_t clock_read,
                     std::int64_t batch = -1);

  /// Computes the next weights: given the newest published ones, fills `next`, which has tensors of the same shapes.
  using Rule = FunctionRef<void(const TensorSet& now, std::vector<torch::Tensor>& next)>;
  /// Publishes weights that a coupling computed; `what` names it in transcripts. The optimizer's state stays, and the
  /// clock, unless another is given. Returns what it published.
  TensorSetPtr update(Actor& actor, int block, const char* what, Rule rule, std::optional<std::int64_t> clock = std::nullopt);
  /// The newest weights without what an optimizer with look-ahead (Nesterov) has added: x, where x + momentum * v is published
  /// because the gradient is to be evaluated there. Other optimizers: the newest published weights themselves.
  TensorSetPtr iterate(Actor& actor, int block) const;

  /// The weights to evaluate and to export: the average, if one is kept, else the newest published ones.
  Snapshot result(int block) const;

  /// A step in which the block has no gradient yet (warm-up of a delayed method): the next version with the same weights. The
  /// optimizer's state does not move.
  std::int64_t skip(Actor& actor, int block);

  /// Learning rate of the step that a block whose clock is `clock` takes next.
  double rate(std::int64_t clock) const;
  /// The run's steps are numbered anew, `steps` further on than before, because another number of replicas shares them: the
  /// learning rate's schedule follows, clocks stay. Between segments.
  void renumber(std::int64_t steps) { schedule_offset_ += steps; }

  /// Publishes what a forward pass that read `read` did to the buffers. Where others have published meanwhile, as if the pass had
  /// begun with what they left: running means r <- d r + (1 - d) s stay means however many passes are under way. Where d is not
  /// known (`buffer_decays`), the difference is added, to a real number divided by the publications it missed, so that it cannot
  /// diverge.
  void merge_buffers(Actor& actor, int block, const TensorSetPtr& read, const std::vector<torch::Tensor>& after);

  StalenessCount staleness(int block) const;

  /// How a training pass changes each buffer of `block`: d, where it makes d r + (1 - d) s of a running mean r; not a number
  /// where that is not known.
  const std::vector<double>& buffer_decays(int block) const;

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
  /// DataError when the archive does not fit the model; the store is then as it was. `partial`: it may hold some blocks only.
  void load(torch::serialize::InputArchive& archive, bool partial = false);

 private:
  struct BlockState;
  struct Loaded;
  Loaded read_block(BlockState& state, torch::serialize::InputArchive& part) const;
  TensorSetPtr publish(Actor& actor, BlockState& state, std::shared_ptr<TensorSet> next, Event event);
  void average(BlockState& state) const;

  StoreOptions options_;
  std::int64_t schedule_offset_ = 0;  ///< changes between segments only
  std::vector<std::unique_ptr<BlockState>> blocks_;
};

}  // namespace rubato
