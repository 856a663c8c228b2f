#include "rubato/compare/picture.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "rubato/compare/runner.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

struct Point {
  double x = 0, y = 0;
};

/// A name and points, drawn as one line.
struct Line {
  std::string name;
  std::vector<Point> points;
};

/// As gnuplot takes it between double quotes.
std::string gnuplot_text(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '"' || c == '\\') safe += '\\';
    safe += c == '\n' ? ' ' : c;
  }
  return '"' + safe + '"';
}

bool wanted(const Picture& picture, const Trial& trial) {
  if (!picture.methods.empty() && std::ranges::find(picture.methods, trial.method) == picture.methods.end()) return false;
  return std::ranges::all_of(picture.only, [&](const auto& only) {
    const std::string value = trial.at(only.first);
    return value.empty() || value == only.second;
  });
}

std::string name_of(const Picture& picture, const Trial& trial) {
  std::string name = trial.method;
  for (const std::string& axis : picture.split) {
    if (!trial.at(axis).empty()) name += fmt::format(", {} {}", axis, trial.at(axis));
  }
  return name;
}

const Column& column_named(const Experiment& experiment, const std::string& name) {
  const auto found = std::ranges::find(experiment.columns, name, &Column::name);
  if (found != experiment.columns.end()) return *found;
  std::vector<std::string> names;
  for (const Column& column : experiment.columns) names.push_back(column.name);
  throw unknown_name("column in a [[picture]]", name, names);
}

std::vector<Line> lines_of(const Picture& picture, const Experiment& experiment, const std::vector<Row>& rows) {
  const Column& column = column_named(experiment, picture.y);
  const auto index = static_cast<std::size_t>(&column - experiment.columns.data());
  std::vector<Line> lines;
  for (const Row& row : rows) {
    const std::string x = row.point.at(picture.x);
    if (!wanted(picture, row.point) || x.empty() || row.cells[index].values.empty()) continue;
    const std::string name = name_of(picture, row.point);
    auto line = std::ranges::find(lines, name, &Line::name);
    if (line == lines.end()) line = lines.insert(lines.end(), Line{name, {}});
    line->points.push_back({std::stod(x), row.cells[index].mean()});
  }
  for (Line& line : lines) std::ranges::sort(line.points, {}, &Point::x);
  return lines;
}

/// Of each run's metrics.jsonl: where both fields are.
std::vector<Line> curves_of(const Picture& picture, const std::vector<Result>& results, const std::filesystem::path& folder) {
  std::vector<Line> lines;
  for (const Result& result : results) {
    if (!wanted(picture, result.trial) || result.trial.seed != results.front().trial.seed) continue;
    Line line{name_of(picture, result.trial), {}};
    std::ifstream file(folder_of(result.trial, folder) / "metrics.jsonl");
    for (std::string text; std::getline(file, text);) {
      const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.contains(picture.x) && json.contains(picture.y) && json[picture.y].is_number()) {
        line.points.push_back({json[picture.x], json[picture.y]});
      }
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string head(const Picture& picture, const std::filesystem::path& target, int width, int height) {
  std::string text =
      fmt::format("set terminal svg size {},{} dynamic enhanced font 'sans,13' background rgb 'white'\nset output {}\n", width,
                  height, gnuplot_text(target.string()));
  text += "set grid lc rgb '#dddddd'\nset border 3\nset tics nomirror\n";
  text += fmt::format("set xlabel {} noenhanced\nset ylabel {} noenhanced\n",
                      gnuplot_text(picture.x_label.empty() ? picture.x : picture.x_label),
                      gnuplot_text(picture.y_label.empty() ? picture.y : picture.y_label));
  if (picture.log_x) text += "set logscale x 2\n";
  if (picture.log_y) text += "set logscale y\n";
  return text;
}

std::string script_of_lines(const Picture& picture, const std::filesystem::path& target, const std::vector<Line>& lines) {
  std::string text = head(picture, target, 760, 460);
  text += fmt::format("set title {} noenhanced\nset key outside right noenhanced\n", gnuplot_text(picture.title));
  std::vector<std::string> plots;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += fmt::format("$line{} << EOD\n", i);
    for (const Point& point : lines[i].points) text += fmt::format("{} {}\n", point.x, point.y);
    text += "EOD\n";
    const char* style = picture.kind == "lines" ? "linespoints pt 7 ps 0.5" : "lines";
    plots.push_back(fmt::format("$line{} using 1:2 with {} lw 2 lc {} title {}", i, style, i + 1, gnuplot_text(lines[i].name)));
  }
  return text + "plot " + join(plots, ", \\\n  ") + "\n";
}

std::string script_of_map(const Picture& picture, const std::filesystem::path& target, const Experiment& experiment,
                          const std::vector<Row>& rows) {
  const Column& column = column_named(experiment, picture.z);
  const auto index = static_cast<std::size_t>(&column - experiment.columns.data());
  std::map<std::string, std::string> panels;
  std::vector<std::string> order;
  for (const Row& row : rows) {
    if (!wanted(picture, row.point) || row.point.at(picture.x).empty() || row.point.at(picture.y).empty()) continue;
    const std::string name = name_of(picture, row.point);
    if (!panels.contains(name)) order.push_back(name);
    const Cell& cell = row.cells[index];
    panels[name] += fmt::format("{} {} {}\n", row.point.at(picture.x), row.point.at(picture.y),
                                cell.values.empty() ? "NaN" : fmt::format("{}", cell.mean()));
  }
  const int columns = std::min<int>(2, static_cast<int>(order.size()));
  const int lines = (static_cast<int>(order.size()) + columns - 1) / std::max(1, columns);
  std::string text = head(picture, target, 430 * columns, 60 + 360 * lines);
  text += fmt::format("set multiplot layout {},{} title {} noenhanced\n", lines, columns, gnuplot_text(picture.title));
  text += "set palette defined (0 '#2166ac', 1 'white', 2 '#b2182b')\nunset key\nset datafile missing 'NaN'\n";
  if (picture.z.find("growth") != std::string::npos) text += "set cbrange [-1:1]\n";
  for (std::size_t i = 0; i < order.size(); ++i) {
    text += fmt::format("$panel{} << EOD\n{}EOD\nset title {} noenhanced\n", i, panels[order[i]], gnuplot_text(order[i]));
    text += fmt::format("plot $panel{} using 1:2:3 with points pt 5 ps 3 lc palette\n", i);
  }
  return text + "unset multiplot\n";
}

}  // namespace

void draw(const Picture& picture, const Experiment& experiment, const std::vector<Result>& results,
          const std::filesystem::path& folder, const std::filesystem::path& target) {
  const std::vector<Row> rows = rows_of(experiment, results);
  std::string script;
  if (picture.kind == "map") {
    script = script_of_map(picture, target, experiment, rows);
  } else if (picture.kind == "lines" || picture.kind == "curves") {
    const auto lines = picture.kind == "lines" ? lines_of(picture, experiment, rows) : curves_of(picture, results, folder);
    if (std::ranges::all_of(lines, [](const Line& line) { return line.points.empty(); })) {
      throw UsageError(fmt::format("picture {}: no run has both '{}' and '{}'", picture.file, picture.x, picture.y));
    }
    script = script_of_lines(picture, target, lines);
  } else {
    throw unknown_name("kind of picture", picture.kind, {"lines", "curves", "map"});
  }
  std::FILE* gnuplot = popen("gnuplot", "w");
  if (gnuplot == nullptr) throw DataError("gnuplot cannot be started: install Debian's package gnuplot-nox");
  std::fwrite(script.data(), 1, script.size(), gnuplot);
  const int status = pclose(gnuplot);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    throw DataError(
        "the tables are written, but gnuplot, which draws the pictures, is missing: install Debian's package gnuplot-nox");
  }
  if (status != 0) throw DataError(fmt::format("gnuplot could not draw {}", picture.file));
}

}  // namespace rubato
