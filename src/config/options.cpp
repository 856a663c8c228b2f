#include "rubato/config/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

#include "rubato/config/entries.h"
#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/core/ranges.h"
#include "rubato/core/registry.h"
#include "rubato/couplings/coupling.h"
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
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      check_whole_range(info.name, static_cast<std::int64_t>(value), info.low, info.high);
    } else if constexpr (std::is_floating_point_v<T>) {
      check_range(info.name, value, info.low, info.high);
    }
  }
  template <class T>
  void operator()(const OptionInfo& info, const std::optional<T>& value) const {
    if (value) (*this)(info, *value);
  }
};

void resolve_optimizer(TrainOptions& o) {
  const OptimizerEntry& optimizer = find_optimizer(o.optimizer);
  const bool sgd = optimizer.is_sgd;
  if (!o.lr) o.lr = optimizer.learning_rate;
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
  const bool plain = coupling.topology == Topology::centre && !coupling.look_ahead;
  if (!o.momentum) o.momentum = plain ? 0.0 : optimizer.momentum;
  if (coupling.look_ahead) o.nesterov = *o.momentum > 0;
  if (o.momentum_form == "auto") o.momentum_form = coupling.look_ahead ? "velocity" : "torch";
  if (parse_momentum_form(o.momentum_form) == MomentumForm::velocity && !sgd) {
    throw UsageError(fmt::format("--momentum-form velocity is for --optimizer sgd, not for {}: leave it out", o.optimizer));
  }
  if (!o.weight_decay) o.weight_decay = optimizer.weight_decay;
}

/// Whether one replica is all there is.
bool is_alone(const TrainOptions& o) {
  return find_coupling(o.coupling).topology == Topology::alone;
}

void resolve_coupling(TrainOptions& o) {
  const CouplingEntry& coupling = find_coupling(o.coupling);
  if (o.replicas == 0) o.replicas = coupling.topology == Topology::alone ? 1 : 2;
  if (coupling.default_period == 0 && o.period && *o.period != 1) {
    throw UsageError(coupling.topology == Topology::alone
                         ? fmt::format("--period {} without a coupling: a single replica has nobody to exchange with; leave it "
                                       "out, or choose a --coupling",
                                       *o.period)
                         : fmt::format("--period {} with --coupling {}: it exchanges at every step; leave --period out",
                                       *o.period, o.coupling));
  }
  if (!o.period) o.period = std::max<std::int64_t>(1, coupling.default_period);
  check_known("sampling", o.sampling, {"auto", "whole", "shard"});
  if (o.sampling == "auto") o.sampling = coupling.shards_data ? "shard" : "whole";
  if (coupling.every_block && find_schedule(o.schedule).partial_steps) {
    throw UsageError(
        fmt::format("--coupling {} needs a gradient of every block in every step, of which --schedule {} computes a part only: "
                    "use --schedule hogwild, or a coupling of weights like lap",
                    o.coupling, o.schedule));
  }
  if (coupling.whole_steps && !find_schedule(o.schedule).whole_steps) {
    throw UsageError(
        fmt::format("--coupling {} needs a gradient of the whole model per turn, which --schedule {} does not give: use "
                    "--schedule serial, or another coupling",
                    o.coupling, o.schedule));
  }
}

bool is_usual_stale_weights(const TrainOptions& o) {
  return o.stale_weights == "auto" || o.stale_weights == name_of(find_schedule(o.schedule).stale_weights.front());
}

void resolve_stale_weights(TrainOptions& o) {
  if (o.stale_weights == "auto") o.stale_weights = name_of(find_schedule(o.schedule).stale_weights.front());
  check_stale_weights(o.schedule, parse_stale_weights(o.stale_weights));
}

void check_combinations(const TrainOptions& o) {
  if (o.stale_weights == "live" && o.precision == "bf16") {
    throw UsageError(
        "--stale-weights live cannot work with --precision bf16: autocast keeps a bfloat16 copy of the weights of the forward "
        "pass; use fp32 or stashed");
  }
  if (is_alone(o) && o.replicas > 1) {
    throw UsageError(fmt::format("--replicas {} with --coupling {} would train {} models that never meet: start separate runs",
                                 o.replicas, o.coupling, o.replicas));
  }
  if (o.record && !o.resume.empty()) {
    throw UsageError("--record with --resume: a recording begins with the initial weights; record a run from its start");
  }
  if (!o.resume.empty() && !o.init_from.empty()) {
    throw UsageError("--resume and --init-from both say where the weights come from: give one of them");
  }
}

/// Of an option: the entry kind that it depends on, and the entries that read it.
struct Readers {
  const EntryKind* kind = nullptr;
  std::vector<std::string> entries;
};
using AllReaders = std::map<std::string, Readers>;

/// Of every option that not all entries of a kind read.
AllReaders all_readers() {
  AllReaders readers;
  for (const EntryKind& kind : entry_kinds()) {
    for (const EntryView& entry : kind.entries()) {
      for (const std::string& option : entry.reads) {
        readers[option].kind = &kind;
        readers[option].entries.push_back(entry.name);
      }
    }
  }
  for (EntryOption& option : entry_options()) readers[option.spec.name] = {option.kind, std::move(option.entries)};
  return readers;
}

bool reads(const Readers& readers, const std::string& entry) {
  return std::ranges::find(readers.entries, entry) != readers.entries.end();
}

/// Calls `use(info, field, usual)` for every option of all runs, with its default.
template <class Use>
void visit_with_defaults(TrainOptions& options, Use&& use) {
  const TrainOptions usual;
  visit_options(options, [&](const OptionInfo& info, auto& field) {
    visit_options(usual, [&](const OptionInfo& other, const auto& value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(field)>, std::decay_t<decltype(value)>>) {
        if (std::string_view(info.name) == other.name) use(info, field, value);
      }
    });
  });
}

/// A value of an entry's option, or the default that it stands for.
std::optional<OptionValue> value_or_usual(const OptionSpec& spec, const OptionValues& values) {
  if (const OptionValue* value = values.find(spec.name)) return fitted(spec, *value);
  return spec.worked_out ? std::nullopt : std::optional(spec.usual);
}

/// Options that are set and that nothing of this run reads.
class Unread {
 public:
  explicit Unread(const TrainOptions& options) : options_(options) {}

  void refuse_any() const {
    TrainOptions options = options_;
    visit_with_defaults(options, [&](const OptionInfo& info, const auto& value, const auto& usual) {
      if (value != usual && !means_nothing(info.name)) check(info.name);
    });
    for (const EntryOption& option : entry_options()) {
      const OptionValue* value = options_.values.find(option.spec.name);
      if (value == nullptr) continue;
      if (option.spec.worked_out || fitted(option.spec, *value) != option.spec.usual) check(option.spec.name);
    }
  }

  /// What `resolve` writes where there is nothing to say.
  bool means_nothing(const std::string& name) const {
    return (name == "stages" && options_.stages == 1) || (name == "cuts" && options_.cuts.empty()) ||
           (name == "sampling" && options_.sampling == "whole") ||
           (name == "stale-weights" && is_usual_stale_weights(options_)) || (name == "probe-bias" && options_.probe_bias == 0);
  }

  /// UsageError if nothing of this run reads the option.
  void check(const std::string& name) const {
    refuse_other_entries(name);
    if (name.starts_with("lr-step-") && options_.lr_schedule != "step") {
      throw UsageError(fmt::format("--{} is for --lr-schedule step, not for {}: leave it out", name, options_.lr_schedule));
    }
    if (name == "staleness-scaling" && is_alone(options_) && find_schedule(options_.schedule).synchronous) {
      throw UsageError(
          fmt::format("--staleness-scaling: no gradient of --schedule {} is stale; leave it out", options_.schedule));
    }
    const ScheduleEntry& schedule = find_schedule(options_.schedule);
    if (name == "stale-weights" && schedule.synchronous && schedule.stale_weights.size() > 1) {
      throw UsageError(fmt::format("--stale-weights: no weights of --schedule {} are stale; leave it out", options_.schedule));
    }
    if (name == "probe-bias" && is_alone(options_) && schedule.synchronous) {
      throw UsageError(fmt::format("--probe-bias: no gradient of --schedule {} is stale; leave it out", options_.schedule));
    }
  }

 private:
  void refuse_other_entries(const std::string& option) const {
    const auto found = readers_.find(option);
    if (found == readers_.end()) return;
    const EntryKind& kind = *found->second.kind;
    const std::string& chosen = options_.*kind.chosen;
    if (!reads(found->second, chosen)) {
      throw UsageError(fmt::format("--{} is for --{} {}, not for {}: leave it out, or choose {}", option, kind.name,
                                   join(found->second.entries, " or "), chosen,
                                   found->second.entries.size() == 1 ? found->second.entries.front() : "one of these"));
    }
    refuse_without_condition(option, find_entry(kind, chosen));
  }
  /// Of the chosen entry, which reads it where another of its options has a certain value.
  void refuse_without_condition(const std::string& option, const EntryView& entry) const {
    const auto own = std::ranges::find(entry.options, option, &OptionSpec::name);
    if (own == entry.options.end() || !own->only_if) return;
    const auto other = std::ranges::find(entry.options, own->only_if->option, &OptionSpec::name);
    const auto value = value_or_usual(*other, options_.values);
    if (value == own->only_if->value) return;
    const std::string wanted = to_text(own->only_if->value);
    throw UsageError(fmt::format("--{} is for --{} {}, not for {}: leave it out, or choose {}", option, other->name, wanted,
                                 value ? to_text(*value) : "its default", wanted));
  }

  const TrainOptions& options_;
  const AllReaders readers_ = all_readers();
};

/// Refuses values that no entry has an option for, of another type, or out of range.
void check_values(const OptionValues& values) {
  const std::vector<EntryOption> options = entry_options();
  for (const auto& [name, value] : values) {
    const auto option = std::ranges::find(options, name, [](const EntryOption& one) { return one.spec.name; });
    if (option == options.end()) {
      std::vector<std::string> known;
      for (const EntryOption& one : options) known.push_back(one.spec.name);
      throw unknown_name("option", name, known);
    }
    const OptionValue same = fitted(option->spec, value);
    const OptionInfo info{option->spec.name.c_str(), "", ""};
    if (const auto* text = std::get_if<std::string>(&same.held())) TextCheck{}(info, *text);
  }
}

/// What the chosen entries read, complete, and nothing else.
OptionValues values_of_entries(const TrainOptions& o) {
  OptionValues all;
  for (const EntryKind& kind : entry_kinds()) {
    const EntryView entry = find_entry(kind, o.*kind.chosen);
    const RunFacts facts{.replicas = o.replicas, .learning_rate = *o.lr};
    for (const auto& [name, value] : checked_values(entry, o.values, facts)) all.set(name, value);
  }
  return all;
}

/// Sets what entries of this kind read, but `entry` does not, back to defaults.
void forget_unread(TrainOptions& options, const std::string& kind, const std::string& entry) {
  const AllReaders readers = all_readers();
  const auto is_unread = [&](const std::string& option) {
    const auto found = readers.find(option);
    return found != readers.end() && found->second.kind->name == kind && !reads(found->second, entry);
  };
  visit_with_defaults(options, [&](const OptionInfo& info, auto& field, const auto& usual) {
    if (is_unread(info.name)) field = usual;
  });
  std::vector<std::string> unread;
  for (const auto& [name, value] : options.values) {
    if (is_unread(name)) unread.push_back(name);
  }
  for (const std::string& name : unread) options.values.erase(name);
}

/// What asks about stale gradients says nothing where there are none.
TrainOptions without_needless(TrainOptions options) {
  if (!is_alone(options) || !find_schedule(options.schedule).synchronous) return options;
  options.probe_bias = 0;
  options.staleness_scaling = TrainOptions{}.staleness_scaling;
  return options;
}

}  // namespace

void check_is_read(const TrainOptions& options, const std::string& option) {
  const Unread unread(options);
  if (!unread.means_nothing(option)) unread.check(option);
}

TrainOptions with_entry(TrainOptions options, const std::string& kind, const std::string& name) {
  const auto found = std::ranges::find(entry_kinds(), kind, &EntryKind::name);
  if (found == entry_kinds().end()) throw std::logic_error("there is no kind of entries called '" + kind + "'");
  forget_unread(options, kind, name);
  options.*found->chosen = name;
  return options;
}

TrainOptions with_schedule(TrainOptions options, const std::string& schedule) {
  if (options.schedule != schedule) options.stale_weights = TrainOptions{}.stale_weights;
  return without_needless(with_entry(std::move(options), "schedule", schedule));
}

TrainOptions with_coupling(TrainOptions options, const std::string& coupling) {
  if (options.coupling != coupling) {
    const TrainOptions usual;
    options.period = usual.period;
    for (const EntryOption& option : entry_options()) {
      if (option.kind->name == "coupling" && option.spec.worked_out) options.values.erase(option.spec.name);
    }
    options.sampling = usual.sampling;
    options.replicas = find_coupling(coupling).topology == Topology::alone ? usual.replicas : options.replicas;
  }
  return without_needless(with_entry(std::move(options), "coupling", coupling));
}

TrainOptions with_replicas(TrainOptions options, int replicas) {
  options.replicas = replicas;
  for (const EntryOption& option : entry_options()) {
    if (option.spec.per_replica) options.values.erase(option.spec.name);
  }
  return options;
}

std::optional<std::string> first_difference(const TrainOptions& before, const TrainOptions& now, OtherReplicas replicas) {
  std::optional<std::string> found;
  const auto differs = [&](const auto& info, bool same) {
    if (found || same || !info.identity || (info.of_replicas && replicas == OtherReplicas::allowed)) return;
    found = info.name;
  };
  visit_options(before, [&](const OptionInfo& info, const auto& old_value) {
    visit_options(now, [&](const OptionInfo& other, const auto& new_value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(old_value)>, std::decay_t<decltype(new_value)>>) {
        if (std::string_view(info.name) == other.name) differs(info, old_value == new_value);
      }
    });
  });
  for (const EntryOption& option : entry_options()) {
    differs(option.spec, value_or_usual(option.spec, before.values) == value_or_usual(option.spec, now.values));
  }
  return found;
}

TrainOptions resolve(TrainOptions o) {
  visit_options(std::as_const(o), RangeCheck{});
  visit_options(std::as_const(o), TextCheck{});
  for (const EntryKind& kind : entry_kinds()) find_entry(kind, o.*kind.chosen);
  check_values(o.values);
  check_known("policy of --when-worker-dies", o.when_worker_dies, {"auto", "continue", "wait", "stop"});
  check_known("precision", o.precision, {"fp32", "bf16"});
  check_known("memory format", o.memory_format, {"contiguous", "channels-last"});
  check_known("staleness scaling", o.staleness_scaling, {"none", "inverse"});
  check_known("learning-rate schedule", o.lr_schedule, LearningRate::schedules());
  parse_publish(o.publish);
  resolve_stale_weights(o);
  for (const std::string& delay : o.inject_delay) parse_delay(delay);
  Unread(o).refuse_any();
  resolve_optimizer(o);
  resolve_coupling(o);
  check_combinations(o);
  o.values = values_of_entries(o);
  if (!find_schedule(o.schedule).uses_cuts) o.stages = 1;
  if (o.stages == 0) o.stages = default_stages;
  if (o.stages == 1 && o.cuts != "auto" && !o.cuts.empty()) {
    throw UsageError(fmt::format("--cuts {} with a single stage: leave it out, or give --stages", o.cuts));
  }
  if (o.stages == 1) o.cuts = "";
  return o;
}

}  // namespace rubato
