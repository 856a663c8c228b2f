#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "rubato/core/option_values.h"

namespace rubato {

/// Where --stages and the number of processes say nothing.
inline constexpr int default_stages = 2;

/// Everything that determines a run: a field for each flag of `rubato train` that belongs to all runs, and the values of those
/// that the chosen schedule, coupling, optimizer, model and data set bring. Meaning, unit and range stand in options_table.h and
/// with the entries; command line, TOML and checks are made from them.
struct TrainOptions {
  std::string data = "fashion-mnist", data_dir;
  int sequence_length = 64;
  bool augment = false, no_shuffle = false;
  int batch_size = 128;
  int prefetch = 4;

  std::string model = "resnet8";
  int width = 0;
  std::optional<double> dropout;
  std::string init_from;

  std::string schedule = "serial";
  int stages = 0;
  std::string cuts = "auto";
  std::string publish = "block", stale_weights = "auto", staleness_scaling = "none";

  std::string coupling = "none";
  int replicas = 0;
  std::optional<std::int64_t> period;
  std::string sampling = "auto";

  std::string optimizer = "sgd";
  std::optional<double> lr, momentum, weight_decay;
  bool nesterov = false;
  std::string momentum_form = "auto";
  std::string lr_schedule = "cosine";
  double warmup_epochs = 0, lr_step_epochs = 1, lr_step_factor = 0.1;
  double clip_norm = 0, clip_value = 0;

  int epochs = 1;
  std::optional<std::int64_t> steps;
  std::optional<double> target_accuracy;
  std::int64_t evaluate_every = 0;
  std::optional<double> target_loss;

  std::string precision = "fp32", memory_format = "contiguous", device = "cpu";
  std::uint64_t seed = 1;
  int threads_per_role = 1;
  std::vector<std::string> inject_delay;

  std::string run_dir, resume;
  std::int64_t checkpoint_every = 0;
  std::int64_t probe_bias = 0;
  bool trace = false, record = false, quiet = false, json = false;

  std::string when_worker_dies = "auto";
  double silence = 1.5, patience = 60, link_latency_ms = 0;
  std::string metrics;

  /// Options that entries bring, by flag without dashes: {"workers", 3}. What is not here has its default.
  OptionValues values;

  bool operator==(const TrainOptions&) const = default;
};

/// Replaces every default that depends on another option by its value (learning rate by optimizer, passes in flight, ...), so
/// that the written configuration says what ran. Throws UsageError for values outside their range and for combinations that
/// cannot work.
/// Afterwards `values` holds all options of the chosen entries and no others.
TrainOptions resolve(TrainOptions options);

/// UsageError if nothing of a run with `options` reads `option` (a flag without dashes), whatever its value.
void check_is_read(const TrainOptions& options, const std::string& option);

/// `options` with another entry of the kind "data", "model", "schedule", "coupling" or "optimizer": what only other entries of
/// that kind read goes back to its default.
TrainOptions with_entry(TrainOptions options, const std::string& kind, const std::string& name);
/// The same, with all that a default may have become for the former schedule or coupling.
TrainOptions with_schedule(TrainOptions options, const std::string& schedule);
TrainOptions with_coupling(TrainOptions options, const std::string& coupling);

/// Whether options that a resumed run must share with what it goes on from may differ because another number of replicas shares
/// the work.
enum class OtherReplicas { refused, allowed };
/// The flag of the first option that would make `now` another run than `before`; nothing: it is the same run.
std::optional<std::string> first_difference(const TrainOptions& before, const TrainOptions& now,
                                            OtherReplicas replicas = OtherReplicas::refused);

/// `options` for another number of replicas: what follows from the number is worked out anew.
TrainOptions with_replicas(TrainOptions options, int replicas);

/// The options as a TOML document whose keys are the flags' names. Those of data, model, schedule, coupling and optimizer stand
/// in tables of these names, the entry's own name as `name`.
std::string to_toml(const TrainOptions& options);
/// The reverse; all keys may also stand at the top level, as in files of earlier versions. Keys that are missing keep their
/// default; UsageError for unknown keys and wrong types, with line and column.
TrainOptions from_toml(const std::string& text, const std::string& file_name, TrainOptions defaults = {});

}  // namespace rubato
