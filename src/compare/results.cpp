#include "rubato/compare/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "compare/formula.h"
#include "rubato/compare/runner.h"
#include "rubato/core/error.h"
#include "rubato/core/json_text.h"
#include "rubato/core/read_file.h"

namespace rubato {
namespace {

void flatten(const nlohmann::json& json, const std::string& prefix, Result& result) {
  for (const auto& [key, value] : json.items()) {
    const std::string name = prefix.empty() ? identifier(key) : prefix + "_" + identifier(key);
    if (value.is_object()) {
      flatten(value, name, result);
    } else if (value.is_number()) {
      result.figures[name] = value.get<double>();
    } else if (value.is_null()) {
      result.without.insert(name);
    }
  }
}

Result read_result(const Trial& trial, const std::filesystem::path& folder) {
  const auto file = folder_of(trial, folder) / "summary.json";
  nlohmann::json json;
  try {
    json = json_object(whole_file(file), file.string());
  } catch (const DataError&) {
    throw DataError(file.string() + " is missing or damaged: delete its folder and compare again");
  }
  Result result{.trial = trial};
  if (json.contains("status") && json.at("status").is_string()) result.status = json.at("status").get<std::string>();
  flatten(json, "", result);
  result.figures.merge(numbers_of(trial.point));
  return result;
}

/// A figure that no run knows is a slip of the pen, not a figure that is missing.
void check_formulas(const Experiment& experiment, const std::vector<Result>& results) {
  std::set<std::string> known;
  for (const Result& result : results) {
    for (const auto& [name, value] : result.figures) known.insert({name, "base_" + name});
    for (const std::string& name : result.without) known.insert({name, "base_" + name});
  }
  for (const Column& column : experiment.columns) {
    Figures figures;
    for (const std::string& name : known) figures[name] = 1;
    try {
      if (!column.formula.empty()) evaluate_formula(column.formula, figures);
    } catch (const UnknownFigure& unknown) {
      const std::string nearest = nearest_name(unknown.name, {known.begin(), known.end()});
      throw UsageError(fmt::format("column '{}': no run has a figure '{}'{}", column.name, unknown.name,
                                   nearest.empty() ? "" : ": did you mean '" + nearest + "'?"));
    }
  }
}

/// The baseline's run with the same seed that agrees on most axes; among equals the first.
const Result* baseline_for(const Result& result, const std::vector<Result>& all, const std::string& baseline) {
  const Result* best = nullptr;
  std::ptrdiff_t most = -1;
  for (const Result& other : all) {
    if (other.trial.method != baseline || other.trial.seed != result.trial.seed) continue;
    const auto agreed =
        std::ranges::count_if(other.trial.point, [&](const auto& value) { return result.trial.at(value.first) == value.second; });
    if (agreed <= most) continue;
    most = agreed;
    best = &other;
  }
  return best;
}

std::string point_text(const Trial& trial, const std::string& without) {
  std::string text = trial.method;
  for (const auto& [axis, value] : trial.point) {
    if (axis != without) text += " | " + value;
  }
  return text;
}

std::vector<std::string> axes_of(const std::vector<Row>& rows, const std::string& without) {
  std::vector<std::string> names;
  for (const Row& row : rows) {
    for (const auto& [axis, value] : row.point.point) {
      if (axis != without && std::ranges::find(names, axis) == names.end()) names.push_back(axis);
    }
  }
  return names;
}

std::string line(const std::vector<std::string>& cells) {
  return "| " + join(cells, " | ") + " |\n";
}

std::string rule(std::size_t cells) {
  std::string text = "|";
  for (std::size_t i = 0; i < cells; ++i) text += " --- |";
  return text + "\n";
}

std::vector<std::string> head_of(const Row& row, const std::vector<std::string>& axes) {
  std::vector<std::string> cells = {row.point.method};
  for (const std::string& axis : axes) cells.push_back(row.point.at(axis).empty() ? "-" : row.point.at(axis));
  return cells;
}

std::vector<std::string> titles_of(const std::vector<std::string>& axes) {
  std::vector<std::string> titles = {"method"};
  titles.insert(titles.end(), axes.begin(), axes.end());
  return titles;
}

std::string long_table(const Experiment& e, const std::vector<Row>& rows) {
  const std::vector<std::string> axes = axes_of(rows, "");
  std::vector<std::string> titles = titles_of(axes);
  for (const Column& column : e.columns) titles.push_back(column.name);
  std::string text = line(titles) + rule(titles.size());
  for (const Row& row : rows) {
    std::vector<std::string> cells = head_of(row, axes);
    for (std::size_t i = 0; i < e.columns.size(); ++i) cells.push_back(row.cells[i].text(e.columns[i].digits));
    text += line(cells);
  }
  return text;
}

std::string wide_table(const Experiment& e, const std::vector<Row>& rows, std::size_t column) {
  std::vector<std::string> values;
  for (const Row& row : rows) {
    const std::string value = row.point.at(e.across);
    if (std::ranges::find(values, value) == values.end()) values.push_back(value);
  }
  const std::vector<std::string> axes = axes_of(rows, e.across);
  std::vector<std::string> titles = titles_of(axes);
  for (const std::string& value : values) titles.push_back(value.empty() ? "-" : e.across + " " + value);
  std::string text = fmt::format("{}:\n\n", e.columns[column].name) + line(titles) + rule(titles.size());
  std::set<std::string> written;
  for (const Row& row : rows) {
    if (!written.insert(point_text(row.point, e.across)).second) continue;
    std::vector<std::string> cells = head_of(row, axes);
    for (const std::string& value : values) {
      const auto found = std::ranges::find_if(rows, [&](const Row& other) {
        return other.point.at(e.across) == value && point_text(other.point, e.across) == point_text(row.point, e.across);
      });
      cells.push_back(found == rows.end() ? "" : found->cells[column].text(e.columns[column].digits));
    }
    text += line(cells);
  }
  return text;
}

}  // namespace

std::vector<Result> read_results(const Experiment& experiment, const std::vector<Trial>& trials,
                                 const std::filesystem::path& folder) {
  std::vector<Result> results;
  for (const Trial& trial : trials) results.push_back(read_result(trial, folder));
  check_formulas(experiment, results);
  if (experiment.baseline.empty()) return results;
  const std::vector<Result> plain = results;
  for (Result& result : results) {
    const Result* base = baseline_for(result, plain, experiment.baseline);
    if (base == nullptr) continue;
    for (const auto& [name, value] : base->figures) result.figures["base_" + name] = value;
  }
  return results;
}

std::optional<double> value_of(const Column& column, const Result& result) {
  try {
    std::string formula = column.formula;
    if (formula.empty()) {
      const auto found = column.values.find(result.trial.at(column.by));
      if (found == column.values.end()) return std::nullopt;
      formula = found->second;
    }
    const double value = evaluate_formula(formula, result.figures);
    return std::isfinite(value) ? std::optional(value) : std::nullopt;
  } catch (const UnknownFigure&) {
    return std::nullopt;
  }
}

double Cell::mean() const {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double Cell::deviation() const {
  if (values.size() < 2) return 0;
  double sum = 0;
  for (const double value : values) sum += (value - mean()) * (value - mean());
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

std::string Cell::text(int digits) const {
  if (diverged) return "diverged";
  if (values.empty()) return "-";
  const std::string text = fmt::format("{:.{}g}", mean(), digits);
  return values.size() < 2 ? text : fmt::format("{} ± {:.2g}", text, deviation());
}

std::vector<Row> rows_of(const Experiment& experiment, const std::vector<Result>& results) {
  std::vector<Row> rows;
  for (const Result& result : results) {
    auto row = std::ranges::find_if(
        rows, [&](const Row& one) { return one.point.method == result.trial.method && one.point.point == result.trial.point; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{result.trial, std::vector<Cell>(experiment.columns.size())});
    for (std::size_t i = 0; i < experiment.columns.size(); ++i) {
      const auto value = value_of(experiment.columns[i], result);
      if (value) row->cells[i].values.push_back(*value);
      if (!value && result.status == "diverged") row->cells[i].diverged = true;
    }
  }
  return rows;
}

std::string table_of(const Experiment& experiment, const std::vector<Row>& rows) {
  if (experiment.across.empty()) return long_table(experiment, rows);
  std::string text;
  for (std::size_t i = 0; i < experiment.columns.size(); ++i) text += (i > 0 ? "\n" : "") + wide_table(experiment, rows, i);
  return text;
}

std::string csv_of(const std::vector<Result>& results) {
  std::set<std::string> names;
  for (const Result& result : results) {
    for (const auto& [name, value] : result.figures) names.insert(name);
  }
  std::string text = "run,status";
  for (const std::string& name : names) text += "," + name;
  text += "\n";
  for (const Result& result : results) {
    text += result.trial.name() + "," + result.status;
    for (const std::string& name : names) {
      const auto found = result.figures.find(name);
      text += found == result.figures.end() ? "," : fmt::format(",{}", found->second);
    }
    text += "\n";
  }
  return text;
}

}  // namespace rubato
