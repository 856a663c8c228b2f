#include "option_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <string_view>
#include <type_traits>

#include "rubato/config/entries.h"
#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/core/numbers.h"
#include "rubato/core/toml_text.h"

namespace rubato::app {
namespace {

/// What is wrong with a number, in words of ours; empty: nothing is, or its range, which is checked with the others'.
template <class T>
std::string wrong_number(const std::string& text) {
  if (text.empty()) return "an empty value is no number: leave the flag out for its default";
  T value{};
  if constexpr (std::is_integral_v<T>) {
    const std::string_view digits = std::string_view(text).substr(text.front() == '-' || text.front() == '+' ? 1 : 0);
    if (!digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos) {
      if (read_number(std::string_view(text).substr(text.front() == '+' ? 1 : 0), value)) return "";
      return fmt::format("{} must be a whole number from {} to {}", text, std::numeric_limits<T>::min(),
                         std::min<std::uint64_t>(std::numeric_limits<T>::max(), std::numeric_limits<std::int64_t>::max()));
    }
    return CLI::detail::lexical_cast(text, value) ? "" : fmt::format("'{}' is not a whole number", text);
  } else {
    errno = 0;
    char* end = nullptr;
    const double read = std::strtod(text.c_str(), &end);
    if (*end != '\0') return fmt::format("'{}' is not a number", text);
    if (errno != ERANGE) return "";
    return fmt::format("{} is too {} for a number", text, std::abs(read) > 1 ? "large" : "close to 0");
  }
}

struct Flags {
  CLI::App& command;
  const std::function<bool(const std::string&)>& is_wanted;

  template <class T>
  void operator()(const OptionInfo& info, T& field) const {
    if (is_wanted(info.name)) add(info, field);
  }

 private:
  void add(const OptionInfo& info, bool& field) const {
    command.add_flag("--" + std::string(info.name), field, info.help)->group(info.group);
  }
  void add(const OptionInfo& info, std::vector<std::string>& field) const {
    command.add_option("--" + std::string(info.name), field, info.help)->group(info.group)->allow_extra_args(false);
  }
  template <class T>
  void add(const OptionInfo& info, std::optional<T>& field) const {
    command.add_option("--" + std::string(info.name), field, info.help)
        ->group(info.group)
        ->take_last()
        ->check(wrong_number<T>, "", "number");
  }
  template <class T>
  void add(const OptionInfo& info, T& field) const {
    CLI::Option* option = command.add_option("--" + std::string(info.name), field, info.help);
    option->group(info.group)->take_last()->capture_default_str();
    if constexpr (!std::is_same_v<T, std::string>) option->check(wrong_number<T>, "", "number");
  }
};

bool is_given(const CLI::App& command, const std::string& option) {
  const CLI::Option* flag = command.get_option_no_throw("--" + option);
  return flag != nullptr && flag->count() > 0;
}

/// Adds the flag of an option that entries bring; when it is given, its value goes into `values`, which outlives the command.
void add_entry_flag(CLI::App& command, OptionValues& values, const EntryOption& option) {
  const std::string name = option.spec.name, flag = "--" + name;
  const auto added = [&](auto held) -> CLI::Option* {
    using T = decltype(held);
    if constexpr (std::is_same_v<T, bool>) {
      return command.add_flag_function(flag, [&values, name](std::int64_t count) { values.set(name, count > 0); });
    } else {
      CLI::Option* added = command.add_option_function<T>(flag, [&values, name](const T& value) { values.set(name, value); });
      added->take_last();
      if constexpr (!std::is_same_v<T, std::string>) added->check(wrong_number<T>, "", "number");
      if (!option.spec.worked_out) added->default_str(to_text(option.spec.usual));
      return added;
    }
  };
  std::visit(added, option.spec.usual.held())->description(option.spec.help)->group(option.kind->group);
}

/// Copies from `flags` into `options` every value whose flag was given.
void overlay(const CLI::App& command, const TrainOptions& flags, TrainOptions& options) {
  visit_options(options, [&](const OptionInfo& info, auto& target) {
    visit_options(flags, [&](const OptionInfo& from, const auto& value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(target)>, std::decay_t<decltype(value)>>) {
        if (std::string_view(from.name) == info.name && is_given(command, info.name)) target = value;
      }
    });
  });
  for (const auto& [name, value] : flags.values) options.values.set(name, value);
}

void check_same_run(const TrainOptions& saved, const TrainOptions& now) {
  if (const auto flag = first_difference(saved, now)) {
    throw UsageError(
        fmt::format("--resume continues a run as it was; --{} differs from its config.toml: leave it out, or "
                    "start a new run with --init-from",
                    *flag));
  }
}

/// How long a run is has been said in one of two ways; the one that was said last counts.
void choose_length(const CLI::App& command, TrainOptions& options) {
  const bool epochs = is_given(command, "epochs"), steps = is_given(command, "steps");
  if (epochs && steps) throw UsageError("--epochs and --steps both say how long the run is: give one of them");
  if (epochs) options.steps.reset();
}

/// A run's own config.toml repeats the run in a folder of its own.
void repeat_elsewhere(const std::string& config_file, TrainOptions& options) {
  std::error_code ignored;
  if (std::filesystem::equivalent(config_file, std::filesystem::path(options.run_dir) / "config.toml", ignored)) {
    options.run_dir.clear();
  }
}

}  // namespace

void add_option_flags(CLI::App& command, TrainOptions& options, std::string& config_file, const std::vector<std::string>& only) {
  command.add_option("--config", config_file, "TOML file with the same keys as these flags; flags override it")
      ->check([](const std::string& name) { return name.empty() ? "an empty name: leave the flag out for no file" : ""; }, "",
              "file");
  const std::function<bool(const std::string&)> is_wanted = [&](const std::string& name) {
    return only.empty() || std::ranges::find(only, name) != only.end();
  };
  visit_options(options, Flags{command, is_wanted});
  for (const EntryOption& option : entry_options()) {
    if (is_wanted(option.kind->name)) add_entry_flag(command, options.values, option);
  }
}

CLI::Validator between(double low, double high) {
  return {[=](const std::string& text) {
            char* end = nullptr;
            const double value = std::strtod(text.c_str(), &end);
            const bool is_number = !text.empty() && *end == '\0';
            return is_number && value >= low && value <= high
                       ? std::string()
                       : fmt::format("'{}' must be a number from {} to {}", text, low, high);
          },
          fmt::format("in [{} - {}]", low, high), "range"};
}

void refuse_unread_flags(const CLI::App& command, const TrainOptions& options) {
  visit_options(options, [&](const OptionInfo& info, const auto&) {
    if (is_given(command, info.name)) check_is_read(options, info.name);
  });
  for (const EntryOption& option : entry_options()) {
    if (is_given(command, option.spec.name)) check_is_read(options, option.spec.name);
  }
}

TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, const std::string& config_file) {
  TrainOptions options;
  if (!flags.resume.empty()) {
    const std::string file = flags.resume + "/config.toml";
    if (!config_file.empty()) throw UsageError("--resume takes the configuration of the run: leave --config out");
    const TrainOptions saved = from_toml(toml_file(file), file);
    options = saved;
    options.init_from.clear();
    overlay(command, flags, options);
    choose_length(command, options);
    check_same_run(saved, options);
    return options;
  }
  if (!config_file.empty()) {
    options = from_toml(toml_file(config_file), config_file);
    repeat_elsewhere(config_file, options);
  }
  return given_options(command, flags, std::move(options));
}

TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, TrainOptions options) {
  // What a file says for its own schedule and coupling says nothing for others.
  if (is_given(command, "schedule")) options = with_schedule(std::move(options), flags.schedule);
  if (is_given(command, "coupling")) options = with_coupling(std::move(options), flags.coupling);
  for (const EntryKind& kind : entry_kinds()) {
    if (is_given(command, kind.name)) options = with_entry(std::move(options), kind.name, flags.*kind.chosen);
  }
  overlay(command, flags, options);
  choose_length(command, options);
  return options;
}

}  // namespace rubato::app
