#include "rubato/config/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string_view>
#include <type_traits>
#include <utility>

#include "rubato/config/catalogue.h"
#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/data/dataset.h"
#include "rubato/model/optimizer.h"
#include "rubato/model/stage.h"
#include "rubato/runtimes/options.h"
#include "rubato/schedules/schedule.h"

namespace rubato {
namespace {

void check_known(const char* kind, const std::string& value, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) == known.end()) throw unknown_name(kind, value, known);
}

/// Well-formed UTF-8, without over-long forms and surrogates.
bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u; };
  for (std::size_t at = 0; at < text.size();) {
    const unsigned first = byte(at);
    const int more = first < 0x80                    ? 0
                     : first >= 0xC2 && first < 0xE0 ? 1
                     : (first & 0xF0) == 0xE0        ? 2
                     : first >= 0xF0 && first < 0xF5 ? 3
                                                     : -1;
    if (more < 0) return false;
    for (int i = 1; i <= more; ++i) {
      if ((byte(at + static_cast<std::size_t>(i)) & 0xC0) != 0x80) return false;
    }
    const unsigned second = byte(at + 1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0) || (first == 0xF0 && second < 0x90) ||
        (first == 0xF4 && second >= 0x90)) {
      return false;
    }
    at += static_cast<std::size_t>(more) + 1;
  }
  return true;
}

/// What a configuration file cannot hold would be another name when it is read again.
struct TextCheck {
  template <class T>
  void operator()(const OptionInfo&, const T&) const {}
  void operator()(const OptionInfo& info, const std::string& value) const {
    if (is_utf8(value)) return;
    throw UsageError(fmt::format("--{} is not UTF-8, which config.toml is written in: rename the file or folder", info.name));
  }
};

struct RangeCheck {
  template <class T>
  void operator()(const OptionInfo& info, const T& value) const {
    if constexpr (std::is_same_v<T, std::uint64_t>) {
      if (!std::in_range<std::int64_t>(value)) {  // which is what TOML has
        throw UsageError(fmt::format("--{} {} must be at most {}", info.name, value, std::numeric_limits<std::int64_t>::max()));
      }
    }
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) number(info, static_cast<double>(value));
  }
  template <class T>
  void operator()(const OptionInfo& info, const std::optional<T>& value) const {
    if (value) number(info, static_cast<double>(*value));
  }

 private:
  static void number(const OptionInfo& info, double value) {
    if (std::isfinite(value) && value >= info.low && value <= info.high) return;
    const bool bounded = std::isfinite(info.high);
    throw UsageError(fmt::format("--{} {} must be {}", info.name, value,
                                 bounded ? fmt::format("between {} and {}", info.low, info.high)
                                         : fmt::format("a finite number of at least {}", info.low)));
  }
};

void resolve_optimizer(TrainOptions& o) {
  check_known("optimizer", o.optimizer, optimizer_names());
  const bool sgd = o.optimizer == "sgd";
  if (!o.lr) o.lr = sgd ? 0.1 : o.optimizer == "adagrad" ? 0.01 : 0.001;
  const CouplingEntry& coupling = find_coupling(o.coupling);
  if (coupling.look_ahead && !sgd) {
    throw UsageError(
        fmt::format("--coupling {} is SGD with Nesterov momentum; --optimizer {} cannot be used with it: leave it out or "
                    "take async-easgd or downpour",
                    o.coupling, o.optimizer));
  }
  if (coupling.whole_steps && (!sgd || o.momentum.value_or(0) > 0)) {
    throw UsageError(fmt::format("--coupling {} has a step of its own: leave --optimizer and --momentum out", o.coupling));
  }
  // The methods of the EASGD paper are plain SGD where momentum is not in their name.
  const bool plain = coupling.extra_roles > 0 && !coupling.look_ahead;
  if (!o.momentum) o.momentum = sgd && !plain ? 0.9 : 0.0;
  if (coupling.look_ahead) o.nesterov = *o.momentum > 0;
  if (o.momentum_form == "auto") o.momentum_form = coupling.look_ahead ? "velocity" : "torch";
  if (parse_momentum_form(o.momentum_form) == MomentumForm::velocity && !sgd) {
    throw UsageError(fmt::format("--momentum-form velocity is for --optimizer sgd, not for {}: leave it out", o.optimizer));
  }
  if (!o.weight_decay) o.weight_decay = sgd ? 5e-4 : o.optimizer == "adamw" ? 0.01 : 0.0;
}

void resolve_coupling(TrainOptions& o) {
  const CouplingEntry& coupling = find_coupling(o.coupling);
  if (o.replicas == 0) o.replicas = o.coupling == "none" ? 1 : 2;
  if (coupling.default_period == 0 && o.period && *o.period != 1) {
    throw UsageError(o.coupling == "none"
                         ? fmt::format("--period {} without a coupling: a single replica has nobody to exchange with; leave it "
                                       "out, or choose a --coupling",
                                       *o.period)
                         : fmt::format("--period {} with --coupling {}: it exchanges at every step; leave --period out",
                                       *o.period, o.coupling));
  }
  if (!o.period) o.period = std::max<std::int64_t>(1, coupling.default_period);
  if (!coupling.elastic && (o.moving_rate || o.beta)) {
    throw UsageError(
        fmt::format("--{} is for elastic averaging (easgd, async-easgd, eamsgd), not for --coupling {}: leave it out",
                    o.moving_rate ? "moving-rate" : "beta", o.coupling));
  }
  if (o.moving_rate && o.beta && *o.beta != *o.moving_rate * o.replicas) {
    throw UsageError("--moving-rate alpha and --beta = replicas x alpha say the same: give one of them");
  }
  if (coupling.elastic) {
    if (!o.moving_rate) o.moving_rate = o.beta.value_or(0.9) / o.replicas;
    o.beta = *o.moving_rate * o.replicas;
  }
  check_known("sampling", o.sampling, {"auto", "whole", "shard"});
  if (o.sampling == "auto") o.sampling = coupling.shards_data ? "shard" : "whole";
  check_known("averaging", o.averaging, {"none", "mean", "moving"});
  if (o.averaging != "none" && o.coupling != "none") {
    throw UsageError(
        fmt::format("--averaging {} is for a single replica; with replicas use --coupling adownpour or mvadownpour, or "
                    "leave it out",
                    o.averaging));
  }
  if (coupling.every_block && find_schedule(o.schedule).partial_steps) {
    throw UsageError(
        fmt::format("--coupling {} needs a gradient of every block in every step, of which --schedule {} computes a part only: "
                    "use --schedule hogwild, or a coupling of weights like lap",
                    o.coupling, o.schedule));
  }
  if (coupling.whole_steps && o.schedule != "serial") {
    throw UsageError(
        fmt::format("--coupling {} needs a gradient of the whole model per turn, which --schedule {} does not give: use "
                    "--schedule serial, or another coupling",
                    o.coupling, o.schedule));
  }
}

void resolve_stale_weights(TrainOptions& o) {
  const bool replays = o.schedule == "features-replay";
  if (o.stale_weights == "auto") o.stale_weights = replays ? "replayed" : "stashed";
  parse_stale_weights(o.stale_weights);
  if (replays && o.stale_weights != "replayed") {
    throw UsageError(
        fmt::format("--stale-weights {} with --schedule features-replay, which always computes the forward pass again: "
                    "leave it out or use --schedule ddg",
                    o.stale_weights));
  }
}

void check_combinations(const TrainOptions& o) {
  check_stale_weights(o.schedule, parse_stale_weights(o.stale_weights));
  if (o.schedule == "pd-asgd" && o.stale_weights == "replayed") {
    throw UsageError(
        "--stale-weights replayed recomputes the forward pass in the backward thread, which leaves pd-asgd's forward "
        "threads nothing to do: use stashed or live");
  }
  if (o.stale_weights == "live" && o.precision == "bf16") {
    throw UsageError(
        "--stale-weights live cannot work with --precision bf16: autocast keeps a bfloat16 copy of the weights of the forward "
        "pass; use fp32 or stashed");
  }
  if (o.coupling == "none" && o.replicas > 1) {
    throw UsageError(fmt::format("--replicas {} with --coupling none would train {} models that never meet: start separate runs",
                                 o.replicas, o.replicas));
  }
  if (o.record && !o.resume.empty()) {
    throw UsageError("--record with --resume: a recording begins with the initial weights; record a run from its start");
  }
  if (!o.resume.empty() && !o.init_from.empty()) {
    throw UsageError("--resume and --init-from both say where the weights come from: give one of them");
  }
}

}  // namespace

namespace {

/// Which entries of one kind read an option that only some of them read.
using Readers = std::map<std::string, std::vector<std::string>>;

template <class Entry>
Readers readers_of(const std::vector<Entry>& entries) {
  Readers readers;
  for (const Entry& entry : entries) {
    for (const std::string& option : entry.options) readers[option].push_back(entry.name);
  }
  return readers;
}

/// Sets options that `readers` names, but that `entry` is not among the readers of, back to their defaults.
void forget_unread(TrainOptions& options, const Readers& readers, const std::string& entry) {
  const TrainOptions usual;
  visit_options(options, [&](const OptionInfo& info, auto& field) {
    const auto found = readers.find(info.name);
    if (found == readers.end() || std::ranges::find(found->second, entry) != found->second.end()) return;
    visit_options(usual, [&](const OptionInfo& other, const auto& value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(field)>, std::decay_t<decltype(value)>>) {
        if (std::string_view(info.name) == other.name) field = value;
      }
    });
  });
}

/// Options that are set and that nothing of this run reads.
class Unread {
 public:
  explicit Unread(const TrainOptions& options) : options_(options) {}

  template <class T>
  void operator()(const OptionInfo& info, const T& value) const {
    const T* usual = nullptr;
    visit_options(usual_, [&](const OptionInfo& other, const auto& field) {
      if constexpr (std::is_same_v<std::decay_t<decltype(field)>, T>) {
        if (std::string_view(info.name) == other.name) usual = &field;
      }
    });
    if (value != *usual && !means_nothing(info.name)) check(info.name);
  }

  /// What `resolve` writes where there is nothing to say.
  bool means_nothing(const std::string& name) const {
    return (name == "stages" && options_.stages == 1) || (name == "cuts" && options_.cuts.empty()) ||
           (name == "sampling" && options_.sampling == "whole");
  }

  void check(const std::string& name) const {
    refuse(name, "schedule", options_.schedule, schedules_, reads(name, schedules_, options_.schedule));
    const bool averages = name == "averaging-rate" && options_.averaging == "moving";
    refuse(name, "coupling", options_.coupling, couplings_, averages || reads(name, couplings_, options_.coupling));
    if (name.starts_with("lr-step-") && options_.lr_schedule != "step") {
      throw UsageError(fmt::format("--{} is for --lr-schedule step, not for {}: leave it out", name, options_.lr_schedule));
    }
    if (name == "sequence-length" && options_.data != "text") {
      throw UsageError(fmt::format("--sequence-length is for --data text, not for {}: leave it out", options_.data));
    }
    if ((name == "memory-format" || name == "augment") && options_.data == "text") {
      throw UsageError(fmt::format("--{} is for images, not for --data text: leave it out", name));
    }
    if (name == "sampling" && options_.coupling == "none") {
      throw UsageError(
          "--sampling is for replicas, of which a run without a coupling has one: leave it out, or choose a --coupling");
    }
    if (name == "staleness-scaling" && options_.coupling == "none" && nothing_is_stale()) {
      throw UsageError(
          fmt::format("--staleness-scaling: no gradient of --schedule {} is stale; leave it out", options_.schedule));
    }
  }

 private:
  bool nothing_is_stale() const { return options_.schedule == "serial" || find_schedule(options_.schedule).synchronous; }
  static bool reads(const std::string& option, const Readers& readers, const std::string& entry) {
    const auto found = readers.find(option);
    return found == readers.end() || std::find(found->second.begin(), found->second.end(), entry) != found->second.end();
  }
  static void refuse(const std::string& option, const char* kind, const std::string& chosen, const Readers& readers, bool read) {
    if (read) return;
    throw UsageError(fmt::format("--{} is for --{} {}, not for {}: leave it out, or choose one of these", option, kind,
                                 join(readers.at(option), " or "), chosen));
  }

  const TrainOptions& options_;
  const TrainOptions usual_{};
  const Readers schedules_ = readers_of(schedules()), couplings_ = readers_of(couplings());
};

}  // namespace

void check_is_read(const TrainOptions& options, const std::string& option) {
  const Unread unread(options);
  if (!unread.means_nothing(option)) unread.check(option);
}

TrainOptions with_schedule(TrainOptions options, const std::string& schedule) {
  forget_unread(options, readers_of(schedules()), schedule);
  if (options.schedule != schedule) options.stale_weights = TrainOptions{}.stale_weights;
  options.schedule = schedule;
  return options;
}

TrainOptions with_coupling(TrainOptions options, const std::string& coupling) {
  const TrainOptions usual;
  forget_unread(options, readers_of(couplings()), coupling);
  if (options.coupling != coupling) {
    options.period = usual.period;
    options.moving_rate = usual.moving_rate;
    options.beta = usual.beta;
    options.sampling = usual.sampling;
    options.replicas = coupling == "none" ? usual.replicas : options.replicas;
  }
  options.coupling = coupling;
  return options;
}

std::optional<std::string> first_difference(const TrainOptions& before, const TrainOptions& now, OtherReplicas replicas) {
  std::optional<std::string> found;
  visit_options(before, [&](const OptionInfo& info, const auto& old_value) {
    visit_options(now, [&](const OptionInfo& other, const auto& new_value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(old_value)>, std::decay_t<decltype(new_value)>>) {
        if (found || !info.identity || std::string_view(info.name) != other.name || old_value == new_value) return;
        if (info.of_replicas && replicas == OtherReplicas::allowed) return;
        found = info.name;
      }
    });
  });
  return found;
}

TrainOptions resolve(TrainOptions o) {
  visit_options(std::as_const(o), RangeCheck{});
  visit_options(std::as_const(o), TextCheck{});
  check_known("data set", o.data, dataset_names());
  const ScheduleEntry& schedule = find_schedule(o.schedule);
  check_known("policy of --when-worker-dies", o.when_worker_dies, {"auto", "continue", "wait", "stop"});
  check_known("precision", o.precision, {"fp32", "bf16"});
  check_known("memory format", o.memory_format, {"contiguous", "channels-last"});
  check_known("staleness scaling", o.staleness_scaling, {"none", "inverse"});
  check_known("learning-rate schedule", o.lr_schedule, LearningRate::schedules());
  parse_publish(o.publish);
  resolve_stale_weights(o);
  for (const std::string& delay : o.inject_delay) parse_delay(delay);
  visit_options(std::as_const(o), Unread(o));
  resolve_optimizer(o);
  resolve_coupling(o);
  check_combinations(o);
  if (o.max_in_flight == 0 && std::ranges::find(schedule.options, "max-in-flight") != schedule.options.end()) {
    o.max_in_flight = default_passes_in_flight({.forward_threads = o.forward_threads, .backward_threads = o.backward_threads});
  }
  if (!schedule.uses_cuts) o.stages = 1;
  if (o.stages == 1 && o.cuts != "auto" && !o.cuts.empty()) {
    throw UsageError(fmt::format("--cuts {} with a single stage: leave it out, or give --stages", o.cuts));
  }
  if (o.stages == 1) o.cuts = "";
  return o;
}

}  // namespace rubato
