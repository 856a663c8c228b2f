#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "rubato/compare/experiment.h"

namespace rubato {

struct RunnerOptions {
  std::string program;           ///< path of the command `rubato`
  std::filesystem::path folder;  ///< run folders go to FOLDER/runs
  int jobs = 1;                  ///< at the same time, >= 1
  /// Told when a run has ended: how many have, of how many; seconds; empty or what went wrong with it (diverged).
  std::function<void(std::size_t done, std::size_t all, const Trial&, double seconds, const std::string& note)> ended = {};
};

/// Runs every trial as a process of its own, unless its folder holds its finished result already. A run that diverges is a
/// result. Throws DataError, with the last line that it printed, when one fails otherwise; Interrupted when one was interrupted.
void run_trials(const std::string& command, const std::vector<Trial>& trials, const RunnerOptions& options);

/// The words after `rubato` that start `trial` in the folder `run`.
std::vector<std::string> arguments_of(const std::string& command, const Trial& trial, const std::filesystem::path& run);

struct Interrupted {};

/// Where the result of a trial lies.
std::filesystem::path folder_of(const Trial& trial, const std::filesystem::path& folder);

}  // namespace rubato
