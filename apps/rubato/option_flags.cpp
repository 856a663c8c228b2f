#include "option_flags.h"

#include <fmt/format.h>

#include "rubato/core/error.h"
#include "rubato/train/files.h"
#include "rubato/train/options_table.h"

namespace rubato::app {
namespace {

struct Flags {
  CLI::App& command;

  void operator()(const OptionInfo& info, bool& field) const {
    command.add_flag("--" + std::string(info.name), field, info.help)->group(info.group);
  }
  void operator()(const OptionInfo& info, std::vector<std::string>& field) const {
    command.add_option("--" + std::string(info.name), field, info.help)->group(info.group)->allow_extra_args(false);
  }
  template <class T>
  void operator()(const OptionInfo& info, std::optional<T>& field) const {
    command.add_option("--" + std::string(info.name), field, info.help)->group(info.group)->take_last();
  }
  template <class T>
  void operator()(const OptionInfo& info, T& field) const {
    command.add_option("--" + std::string(info.name), field, info.help)->group(info.group)->take_last()->capture_default_str();
  }
};

/// Copies from `flags` into `options` every field whose flag was given.
void overlay(const CLI::App& command, const TrainOptions& flags, TrainOptions& options) {
  visit_options(options, [&](const OptionInfo& info, auto& target) {
    visit_options(flags, [&](const OptionInfo& from, const auto& value) {
      if constexpr (std::is_same_v<std::decay_t<decltype(target)>, std::decay_t<decltype(value)>>) {
        if (std::string_view(from.name) == info.name && command.count("--" + std::string(info.name)) > 0) target = value;
      }
    });
  });
}

void check_same_run(const TrainOptions& saved, const TrainOptions& now) {
  visit_options(saved, [&](const OptionInfo& info, const auto& before) {
    visit_options(now, [&](const OptionInfo& other, const auto& after) {
      if constexpr (std::is_same_v<std::decay_t<decltype(before)>, std::decay_t<decltype(after)>>) {
        if (!info.identity || std::string_view(info.name) != other.name || before == after) return;
        throw UsageError(
            fmt::format("--resume continues a run as it was; --{} differs from its config.toml: leave it out, or "
                        "start a new run with --init-from",
                        info.name));
      }
    });
  });
}

}  // namespace

void add_option_flags(CLI::App& command, TrainOptions& options, std::string& config_file) {
  command.add_option("--config", config_file, "TOML file with the same keys as these flags; flags override it");
  visit_options(options, Flags{command});
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
    check_same_run(saved, options);
    return options;
  }
  if (!config_file.empty()) options = from_toml(read_file(config_file), config_file);
  return given_options(command, flags, std::move(options));
}

TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, TrainOptions options) {
  overlay(command, flags, options);
  return options;
}

}  // namespace rubato::app
