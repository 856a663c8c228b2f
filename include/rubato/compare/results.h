#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "rubato/compare/experiment.h"

namespace rubato {

/// Numbers of a run by name: those of summary.json ("bias.mean" is bias_mean), its axes, and the same of the run of the
/// experiment's baseline with the same seed and axes, with "base_" before the name.
using Figures = std::map<std::string, double>;

struct Result {
  Trial trial;
  std::string status;  ///< done, diverged
  Figures figures;
  std::set<std::string> without;  ///< figures that the run names and has no value for
};

/// Reads what `run_trials` left in `folder`. DataError for what is missing, UsageError where a column's formula names a figure
/// that no run knows.
std::vector<Result> read_results(const Experiment& experiment, const std::vector<Trial>& trials,
                                 const std::filesystem::path& folder);

/// Value of a column in one run: nothing where a figure that it needs is missing. UsageError for a formula that cannot be read.
std::optional<double> value_of(const Column& column, const Result& result);

/// Mean and standard deviation over the seeds of one point.
struct Cell {
  std::vector<double> values;
  bool diverged = false;  ///< one seed at least
  double mean() const;
  double deviation() const;  ///< 0 for one value
  std::string text(int digits) const;
};
/// By method and point, in order of appearance: the cell of every column.
struct Row {
  Trial point;  ///< of the first seed
  std::vector<Cell> cells;
};
std::vector<Row> rows_of(const Experiment& experiment, const std::vector<Result>& results);

/// Markdown: one table, or one per column with the values of `across` side by side.
std::string table_of(const Experiment& experiment, const std::vector<Row>& rows);
/// One line per run with every figure.
std::string csv_of(const std::vector<Result>& results);

}  // namespace rubato
