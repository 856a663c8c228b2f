#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "compare/formula.h"
#include "rubato/compare/experiment.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr int most_digits = 17;  // of a number of 64 bits

bool is_word_in(std::string_view text, const std::string& word) {
  const auto is_part = [&](std::size_t at) {
    return at < text.size() && (std::isalnum(static_cast<unsigned char>(text[at])) != 0 || text[at] == '_');
  };
  for (std::size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    if ((at == 0 || !is_part(at - 1)) && !is_part(at + word.size())) return true;
  }
  return false;
}

/// Whether `text` has {name}, or a formula {=...} with it.
bool mentions(const std::string& text, const std::string& name) {
  for (std::size_t open = text.find('{'); open != std::string::npos; open = text.find('{', open + 1)) {
    const std::size_t close = text.find('}', open);
    if (close == std::string::npos) return false;
    const std::string_view inside = std::string_view(text).substr(open + 1, close - open - 1);
    if (inside == name || (inside.starts_with("=") && is_word_in(inside.substr(1), identifier(name)))) return true;
  }
  return false;
}

/// Finds out before the first run what would be refused, or silently left out, after the last.
class Check {
 public:
  Check(const Experiment& experiment, std::string file) : e_(experiment), file_(std::move(file)) {
    for (const Axes* axes : {&e_.vary, &e_.grid}) add(*axes);
    for (const Method& method : e_.methods) add(method.grid);
    for (const Method& method : e_.methods) methods_.push_back(method.name);
    for (const Column& column : e_.columns) columns_.push_back(column.name);
  }

  void all() const {
    for (const Method& method : e_.methods) {
      if (method.name.empty()) refuse("a [[method]] needs a name");
      check_flags(method.options, method.grid);
    }
    check_flags(e_.options, e_.grid);
    for (const auto& [name, values] : e_.vary) check_is_used(name);
    if (!e_.baseline.empty()) check_known("method for 'baseline'", e_.baseline, methods_);
    if (!e_.across.empty()) check_known("axis for 'across'", e_.across, axes_);
    for (const Column& column : e_.columns) check(column);
    for (const Picture& picture : e_.pictures) check(picture);
    check_runs();
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const { throw UsageError(file_ + ": " + why); }
  void check_known(const std::string& kind, const std::string& name, const std::vector<std::string>& known) const {
    if (std::ranges::find(known, name) == known.end()) refuse(unknown_name(kind, name, known).what());
  }
  void add(const Axes& axes) {
    for (const auto& [name, values] : axes) {
      if (std::ranges::find(axes_, name) == axes_.end()) axes_.push_back(name);
    }
  }

  void check_flags(const Flags& options, const Axes& grid) const {
    for (const auto& [flag, instead] : {std::pair{"run-dir", "every run has a folder of its own"},
                                        {"resume", "every run begins at its start"},
                                        {"seed", "give seeds = [...] before all tables"}}) {
      const bool on_grid = std::ranges::any_of(grid, [&](const auto& axis) { return axis.first == flag; });
      if (options.contains(flag) || on_grid) refuse(fmt::format("'{}' cannot be an option of the runs: {}", flag, instead));
    }
  }

  /// By some run: else those with different values would be the same.
  void check_is_used(const std::string& name) const {
    const auto in_options = [&](const Flags& options) {
      return std::ranges::any_of(options, [&](const auto& option) {
        return std::ranges::any_of(option.second, [&](const std::string& value) { return mentions(value, name); });
      });
    };
    const auto on_grid = [&](const Axes& grid) {
      return std::ranges::any_of(grid, [&](const auto& axis) {
        return std::ranges::any_of(axis.second, [&](const std::string& value) { return mentions(value, name); });
      });
    };
    const bool used = in_options(e_.options) || on_grid(e_.grid) || std::ranges::any_of(e_.methods, [&](const Method& method) {
                        return in_options(method.options) || on_grid(method.grid);
                      });
    if (!used) refuse(fmt::format("'{0}' in [vary] stands in no value as {{{0}}}: flags belong into [grid]", name));
  }

  /// Whatever figures there will be.
  void check_formula(const std::string& column, const std::string& formula) const {
    std::map<std::string, double> figures;
    for (std::size_t tries = 0; tries <= formula.size(); ++tries) {
      try {
        evaluate_formula(formula, figures);
        return;
      } catch (const UnknownFigure& unknown) {
        figures[unknown.name] = 1;
      } catch (const UsageError& error) {
        refuse(fmt::format("column '{}': {}", column, error.what()));
      }
    }
  }

  void check(const Column& column) const {
    if (column.name.empty()) refuse("a [[column]] needs a name");
    if (std::ranges::count(columns_, column.name) > 1) refuse(fmt::format("two columns are called '{}'", column.name));
    if (column.digits < 1 || column.digits > most_digits) {
      refuse(fmt::format("column '{}': digits must be from 1 to {}, not {}", column.name, most_digits, column.digits));
    }
    if (!column.formula.empty()) return check_formula(column.name, column.formula);
    if (column.values.empty()) refuse(fmt::format("column '{}' needs a formula, or 'by' and 'values'", column.name));
    check_known("axis for 'by' of a column", column.by, axes_);
    for (const auto& [at, formula] : column.values) check_formula(column.name, formula);
  }

  void check(const Picture& p) const {
    const std::set<std::string> taken = {"", ".", "..", "table.md", "runs.csv", "runs"};
    if (taken.contains(p.file) || p.file.find_first_of("/\\") != std::string::npos) {
      refuse(fmt::format("picture '{}': 'file' must be a name in the folder of the results, like curves.svg", p.file));
    }
    const auto same_file = [&](const Picture& other) { return other.file == p.file; };
    if (std::ranges::count_if(e_.pictures, same_file) > 1) refuse(fmt::format("two pictures are drawn into '{}'", p.file));
    check_known("kind of picture", p.kind, {"lines", "curves", "map"});
    for (const std::string& method : p.methods) check_known("method of picture " + p.file, method, methods_);
    for (const std::string& axis : p.split) check_known("axis for 'split' of picture " + p.file, axis, axes_);
    for (const auto& [axis, value] : p.only) check_known("axis for 'only' of picture " + p.file, axis, axes_);
    if (p.kind == "curves") return;
    check_known("axis for 'x' of picture " + p.file, p.x, axes_);
    if (p.kind == "map") check_known("axis for 'y' of picture " + p.file, p.y, axes_);
    check_known("column of picture " + p.file, p.kind == "map" ? p.z : p.y, columns_);
  }

  /// Each in a folder of its own: else one would be counted twice.
  void check_runs() const {
    std::set<std::string> names;
    for (const Trial& trial : trials_of(e_)) {
      if (names.insert(trial.name()).second) continue;
      refuse(fmt::format("two runs are called {}: a value stands there twice, or names differ only in what folders cannot have",
                         trial.name()));
    }
  }

  const Experiment& e_;
  std::string file_;
  std::vector<std::string> axes_, methods_, columns_;
};

}  // namespace

void check(const Experiment& experiment, const std::string& file) {
  Check(experiment, file).all();
}

}  // namespace rubato
