#include "option_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"

namespace rubato::app {
namespace {

struct Flags {
  CLI::App& command;
  const std::vector<std::string>& only;  // empty: all

  template <class T>
  void operator()(const OptionInfo& info, T& field) const {
    if (only.empty() || std::ranges::find(only, info.name) != only.end()) add(info, field);
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
    command.add_option("--" + std::string(info.name), field, info.help)->group(info.group)->take_last();
  }
  template <class T>
  void add(const OptionInfo& info, T& field) const {
    command.add_option("--" + std::string(info.name), field, info.help)->group(info.group)->take_last()->capture_default_str();
  }
};

bool is_given(const CLI::App& command, const std::string& option) {
  const CLI::Option* flag = command.get_option_no_throw("--" + option);
  return flag != nullptr && flag->count() > 0;
}

/// Copies from `flags` into `options` every field whose flag was given.
void overlay(const CLI::App& command, const TrainOptions& flags, TrainOptions& options) {
  visit_options(options, [&](const OptionInfo& info, auto& target) {
    visit_options(flags, [&](const OptionInfo& from, const auto& value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(target)>, std::decay_t<decltype(value)>>) {
        if (std::string_view(from.name) == info.name && is_given(command, info.name)) target = value;
      }
    });
  });
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
  command.add_option("--config", config_file, "TOML file with the same keys as these flags; flags override it");
  visit_options(options, Flags{command, only});
}

void refuse_unread_flags(const CLI::App& command, const TrainOptions& options) {
  visit_options(options, [&](const OptionInfo& info, const auto&) {
    if (is_given(command, info.name)) check_is_read(options, info.name);
  });
}

TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, const std::string& config_file) {
  TrainOptions options;
  if (!flags.resume.empty()) {
    const std::string file = flags.resume + "/config.toml";
    if (!config_file.empty()) throw UsageError("--resume takes the configuration of the run: leave --config out");
    const TrainOptions saved = from_toml(read_file(file), file);
    options = saved;
    options.init_from.clear();
    overlay(command, flags, options);
    choose_length(command, options);
    check_same_run(saved, options);
    return options;
  }
  if (!config_file.empty()) {
    options = from_toml(read_file(config_file), config_file);
    repeat_elsewhere(config_file, options);
  }
  return given_options(command, flags, std::move(options));
}

TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, TrainOptions options) {
  // What a file says for its own schedule and coupling says nothing for others.
  if (is_given(command, "schedule")) options = with_schedule(std::move(options), flags.schedule);
  if (is_given(command, "coupling")) options = with_coupling(std::move(options), flags.coupling);
  overlay(command, flags, options);
  choose_length(command, options);
  return options;
}

}  // namespace rubato::app
