#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace rubato {

/// One flag and its values: several of a repeatable flag, none of one that takes no value.
using Flags = std::map<std::string, std::vector<std::string>>;

/// Names and values that runs differ in, in the order of the file.
using Axes = std::vector<std::pair<std::string, std::vector<std::string>>>;

/// A method of an experiment: what its runs have in common.
struct Method {
  std::string name;
  Flags options;
  Axes grid;  ///< in place of the experiment's axes of the same names
};

/// A column of the table.
struct Column {
  std::string name;
  std::string formula;                        ///< of figures of the run; empty: `values`
  std::string by;                             ///< axis that `values` are given by
  std::map<std::string, std::string> values;  ///< as published, by the value of that axis
  int digits = 3;                             ///< significant ones
};

/// A chart, drawn into OUT/`file`.
struct Picture {
  std::string file, title,
      kind = "lines";  ///< lines: `y` against axis `x`, a line per method; curves: `y` against `x`, fields of
                       ///< metrics.jsonl, a curve per run; map: `z` over axes `x` and `y`, a panel per method
  std::string x, y, z, x_label, y_label;
  std::vector<std::string> split;           ///< lines: axes besides the method that make a line of their own
  std::map<std::string, std::string> only;  ///< runs with these values only
  std::vector<std::string> methods;         ///< empty: all
  bool log_x = false, log_y = false;
};

/// A comparison, as experiments/*.toml describe it. See docs/experiments.md.
struct Experiment {
  std::string title, text, command = "simulate", baseline;
  std::vector<std::int64_t> seeds = {1};
  Flags options;
  Axes grid, vary;  ///< flags; names that stand as {name} in other values
  std::vector<Method> methods;
  std::vector<Column> columns;
  std::string across;  ///< axis whose values become columns: one table per column then; empty: one row per run
  std::vector<Picture> pictures;
};

/// UsageError, beginning with `file`, for names that nothing has, values that nothing reads, formulas that cannot be read, and
/// two runs that would share a folder. What figures there are, the runs must tell.
void check(const Experiment& experiment, const std::string& file);

/// UsageError with line and column for what is wrong in `file`; what it says has been checked. `full`: with what its [full]
/// section puts in place.
Experiment load_experiment(const std::filesystem::path& file, bool full = false);

/// One run of an experiment.
struct Trial {
  std::string method;
  std::vector<std::pair<std::string, std::string>> point;  ///< value on every axis, in order
  std::int64_t seed = 1;
  Flags flags;
  /// "easgd-replicas=4-period=16-seed=1": the name of its run folder.
  std::string name() const;
  /// Value on `axis`; empty if it has none.
  std::string at(const std::string& axis) const;
};

/// All runs, in the order of methods, axes and seeds.
std::vector<Trial> trials_of(const Experiment& experiment);

}  // namespace rubato
