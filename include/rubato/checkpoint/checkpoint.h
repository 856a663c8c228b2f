#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "rubato/model/weight_store.h"
#include "rubato/observe/evaluate.h"
#include "rubato/observe/meter.h"

namespace rubato {

/// How far a run has come, with its figures: all of it goes on when the run is resumed.
struct Progress {
  std::int64_t step = 0;  ///< batches that each replica has taken
  int replicas = 1;       ///< that `step` counts batches of
  double seconds = 0, virtual_seconds = 0;
  std::optional<double> seconds_to_target;
  MeterState meter;
  std::optional<Evaluation> test;                ///< the last one; none yet, or nothing is computed
  std::int64_t tested_step = -1;                 ///< of the weights that it was of
  std::int64_t metrics_bytes = 0;                ///< of metrics.jsonl
  std::vector<StalenessCount> staleness;         ///< of all replicas together, per block
  std::vector<StalenessCount> centre_staleness;  ///< at a centre, per block; empty: there is none
  std::string data;                              ///< digest of training and test data; empty: nothing is computed
  std::string weights_digest;                    ///< of a run that has ended here; empty: it has not
};

/// What a run needs to go on as if it had never stopped.
class Restorable {
 public:
  virtual ~Restorable() = default;
  virtual void save(torch::serialize::OutputArchive& archive) const = 0;
  virtual void load(torch::serialize::InputArchive& archive) = 0;
};

/// The folder `checkpoint/` of a run: one folder per checkpoint (`000003-step-469/`) and the file `latest` that names the newest
/// complete one. The first number is a checkpoint's serial number: it only ever increases, and "newest" goes by it alone, because
/// steps are numbered anew when a run goes on with another number of replicas. A checkpoint holds
///   weights.pt       the evaluation weights of the run: a dictionary of tensors by name, for `torch.load` in Python,
///   state.pt         weights, versions, optimizers, passes in flight and couplings, for `--resume`,
///   config.toml      the resolved options,
///   vocabulary.json  text: the character of each token,
///   state.json       progress, size and SHA-256 of the other files, and the SHA-256 of all that it says itself.
/// It is written beside the others and renamed into place, so that there is always a complete one.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Keeps the newest two and removes older ones. `vocabulary`: as Dataset::vocabulary. DataError when it cannot be written;
  /// earlier checkpoints are then untouched.
  void write(const Progress& progress, const WeightStore& weights, const Restorable& state, const std::string& config,
             const std::string& vocabulary = "");

  struct Found {
    std::filesystem::path folder;
    Progress progress;
  };
  /// The newest checkpoint whose files are all there and intact. `rejected`, if given, receives one sentence per newer one that
  /// is not. Empty if there is none.
  std::optional<Found> newest(std::vector<std::string>* rejected = nullptr) const;
  /// Whether `name` is that of a checkpoint's folder.
  static bool is_name(const std::string& name);

  /// DataError if `found` does not fit.
  static void load(const Found& found, Restorable& state);

 private:
  std::vector<std::filesystem::path> by_age() const;
  std::filesystem::path folder_;
};

/// The vocabulary that lies beside the weights `file`; nothing: none does.
std::optional<std::string> find_vocabulary(const std::filesystem::path& file);

/// A `weights.pt`: dictionary of tensors by name.
std::string weights_file(const WeightStore& store);

/// `path`: a run folder, a checkpoint folder, one checkpoint, or a .pt file with a dictionary of tensors by name (written here or
/// by Python's `torch.save(model.state_dict(), path)`). Returns the file with the weights. DataError if there is none.
/// `rejected`: as with CheckpointFolder::newest.
std::filesystem::path find_weights(const std::filesystem::path& path, std::vector<std::string>* rejected = nullptr);

/// Copies the weights in `file` into the prototypes of `model`. DataError naming the first tensor that is missing or of another
/// shape.
void load_weights(const std::filesystem::path& file, Model& model);

}  // namespace rubato
