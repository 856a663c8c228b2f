#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rubato/data/batch_source.h"
#include "rubato/model/stage.h"
#include "rubato/replica/replica.h"

namespace rubato {

/// What one block costs for one batch.
struct BlockProfile {
  std::string name;
  std::int64_t parameters = 0;        ///< elements
  std::int64_t activation_bytes = 0;  ///< of the block's output
  double flops = 0;                   ///< multiply-adds counted as 2, of one forward pass
  BlockCost seconds;                  ///< on this machine, one intra-op thread; 0 where not measured
};

struct Profile {
  std::vector<BlockProfile> blocks;
  /// Entry n - 1: how many times longer a step takes while n threads compute; empty: not measured.
  std::vector<double> slowdown = {};
  double loss_flops = 0, loss_seconds = 0;  ///< of the loss of the batch and its gradient
  double flops() const;                     ///< of all blocks together, one forward pass
  std::vector<BlockCost> costs() const;
  /// The same with the loss in the last block, which is computed where that is: what stages are balanced by.
  std::vector<BlockCost> costs_of_stages() const;
};

/// Runs `batch` through the model `repeats` times and takes the median per block. The model's weights are not changed.
Profile measure_profile(const Model& model, const StageOptions& options, const StoreOptions& store, const Batch& batch,
                        int repeats);

/// Costs that depend on the model and the batch alone: floating-point operations counted from the operators that a forward pass
/// calls, and from the loss and its gradient, at `flops_per_second`; backward twice forward. What the simulator uses unless given
/// measured costs.
Profile count_profile(const Model& model, const StageOptions& options, const Batch& batch, double flops_per_second);

/// What an operation takes where the blocks take `costs` and have `flops` operations forward; 0 where nothing is known.
double seconds_per_operation(const std::vector<BlockCost>& costs, double flops);

/// How many times longer a step takes on each of 1, 2, ... `threads` threads that compute at the same time: cores share memory
/// bandwidth and clock. Medians of `repeats` steps, all taken in turns.
std::vector<double> measure_slowdown(const Model& model, const StageOptions& options, const StoreOptions& store,
                                     const Batch& batch, int threads, int repeats);

/// "FORWARD:BACKWARD" of a batch, in seconds with units: "2ms:4ms" for all of `blocks` blocks, or one for each, with commas.
/// UsageError otherwise.
std::vector<BlockCost> parse_block_costs(const std::string& text, std::size_t blocks);

/// JSON as `rubato profile -o FILE` writes it, and back. DataError naming `file_name` and the reason.
std::string to_json(const Profile& profile);
Profile profile_from_json(const std::string& text, const std::string& file_name);

}  // namespace rubato
