#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace rubato {

/// Everything that determines a run. One field per flag of `rubato train`; meaning, unit and range stand in
/// options_table.h, from which the command line, the TOML reader and writer and the checks are made.
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
  int stages = 2;
  std::string cuts = "auto";
  int workers = 2;
  int micro_batches = 4;
  std::int64_t partial_after = 0;
  int forward_threads = 1, backward_threads = 2, max_in_flight = 0;
  std::string publish = "block", stale_weights = "auto", staleness_scaling = "none";
  double gradient_shrinking = 1;
  bool dni_labels = false;
  int dni_layers = 2, dni_width = 256;
  double dni_lr = 1e-3;

  std::string coupling = "none";
  int replicas = 0;
  std::optional<std::int64_t> period;
  std::optional<double> moving_rate, beta;
  double penalty = 1;
  std::string sampling = "auto";
  int bucket_kib = 1024;

  std::string optimizer = "sgd";
  std::optional<double> lr, momentum, weight_decay;
  bool nesterov = false;
  std::string momentum_form = "auto";
  std::string lr_schedule = "cosine";
  double warmup_epochs = 0, lr_step_epochs = 1, lr_step_factor = 0.1;
  double clip_norm = 0, clip_value = 0;
  std::string averaging = "none";
  double averaging_rate = 0.001;

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

  bool operator==(const TrainOptions&) const = default;
};

/// Replaces every default that depends on another option by its value (learning rate by optimizer, passes in flight, ...), so
/// that the written configuration says what ran. Throws UsageError for values outside their range and for combinations that
/// cannot work.
TrainOptions resolve(TrainOptions options);

/// UsageError if nothing of a run with `options` reads `option` (a flag without dashes), whatever its value.
void check_is_read(const TrainOptions& options, const std::string& option);

/// `options` with another schedule or coupling: what only other entries read goes back to its default.
TrainOptions with_schedule(TrainOptions options, const std::string& schedule);
TrainOptions with_coupling(TrainOptions options, const std::string& coupling);

/// Whether options that a resumed run must share with what it goes on from may differ because another number of replicas shares
/// the work.
enum class OtherReplicas { refused, allowed };
/// The flag of the first option that would make `now` another run than `before`; nothing: it is the same run.
std::optional<std::string> first_difference(const TrainOptions& before, const TrainOptions& now,
                                            OtherReplicas replicas = OtherReplicas::refused);

/// The options as a TOML document whose keys are the flags' names.
std::string to_toml(const TrainOptions& options);
/// The reverse. Keys that are missing keep their default; UsageError for unknown keys and wrong types, with line and column.
TrainOptions from_toml(const std::string& text, const std::string& file_name, TrainOptions defaults = {});

}  // namespace rubato
