#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace rubato::app {

/// Adds one subcommand to `app`. What it is to do when chosen goes into `chosen`, which returns the exit code.
using Chosen = std::function<int()>;
void add_train(CLI::App& app, Chosen& chosen);
void add_simulate(CLI::App& app, Chosen& chosen);
void add_replay(CLI::App& app, Chosen& chosen);
void add_compare(CLI::App& app, Chosen& chosen);
void add_eval(CLI::App& app, Chosen& chosen);
void add_profile(CLI::App& app, Chosen& chosen);
void add_status(CLI::App& app, Chosen& chosen);
void add_launch(CLI::App& app, Chosen& chosen);
void add_keys(CLI::App& app, Chosen& chosen);
void add_list(CLI::App& app, Chosen& chosen);

/// One sentence, with the nearest name for an unknown one.
std::string sentence_of(const CLI::App& app, const CLI::ParseError& error);

/// UsageError, or DataError for a configuration that cannot be read, where every one of `workers` processes would refuse the
/// words after `rubato`.
void check_words_of_job(const std::vector<std::string>& words, int workers);

/// Before what needs much more memory at one moment than at another.
void expect_large_changes_of_memory();

/// The file that runs.
std::filesystem::path this_program();

}  // namespace rubato::app
