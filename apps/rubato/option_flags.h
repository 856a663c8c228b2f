#pragma once

#include <CLI/CLI.hpp>

#include "rubato/config/options.h"

namespace rubato::app {

/// One flag per row of the options table and per option of an entry, bound to `options`; and --config. `only`: the options that
/// the command reads, with those that entries of the kinds among them bring; empty: all.
void add_option_flags(CLI::App& command, TrainOptions& options, std::string& config_file,
                      const std::vector<std::string>& only = {});

/// For `CLI::Option::check`: a number from `low` to `high`.
CLI::Validator between(double low, double high);

/// UsageError for a flag that was given and that nothing of a run with `options` reads.
void refuse_unread_flags(const CLI::App& command, const TrainOptions& options);

/// What `command` was told: the file of --config or the configuration of --resume first, then the flags over it.
/// `command` has been parsed once already. UsageError when a resumed run would differ in what determines its result.
TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, const std::string& config_file);

/// The flags that `command` was told over `options`.
TrainOptions given_options(const CLI::App& command, const TrainOptions& flags, TrainOptions options);

}  // namespace rubato::app
