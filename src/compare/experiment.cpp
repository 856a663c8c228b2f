#include "rubato/compare/experiment.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "compare/formula.h"
#include "rubato/core/error.h"
#include "rubato/core/toml_text.h"

namespace rubato {
namespace {

/// Reads one table and knows which of its keys nobody asked for.
class Table {
 public:
  Table(const toml::table& table, std::string file) : table_(table), file_(std::move(file)) {}

  [[noreturn]] void wrong(const toml::node& node, const std::string& sentence) const {
    const auto place = node.source().begin;
    throw UsageError(fmt::format("{}:{}:{}: {}", file_, place.line, place.column, sentence));
  }
  const toml::node* get(const std::string& key) {
    known_.insert(key);
    return table_.get(key);
  }
  template <class T>
  void read(const std::string& key, T& field) {
    const toml::node* node = get(key);
    if (node == nullptr) return;
    const auto value = node->value<T>();
    if (!value) wrong(*node, fmt::format("'{}' has the wrong type", key));
    field = *value;
  }
  void read(const std::string& key, int& field) {
    std::int64_t wide = field;
    read(key, wide);
    if (!std::in_range<int>(wide)) wrong(*get(key), fmt::format("'{}' is too large", key));
    field = static_cast<int>(wide);
  }
  void read(const std::string& key, std::vector<std::string>& field) {
    if (const toml::node* node = get(key)) field = texts(*node);
  }
  void read(const std::string& key, std::map<std::string, std::string>& field) {
    for (const auto& [name, values] : flags(key)) field[name] = values.empty() ? "true" : values.front();
  }
  Flags flags(const std::string& key) {
    Flags flags;
    if (const toml::node* node = get(key)) {
      for (auto&& [name, value] : as_table(*node, key)) {
        const std::string flag(name.str());
        if (value.is_boolean()) {
          if (*value.value<bool>()) flags[flag] = {};
        } else {
          flags[flag] = texts(value);
        }
      }
    }
    return flags;
  }
  /// In the order of the file, which toml++ forgets.
  Axes axes(const std::string& key) {
    Axes axes;
    const toml::node* node = get(key);
    if (node == nullptr) return axes;
    std::vector<std::pair<toml::source_position, std::pair<std::string, std::vector<std::string>>>> placed;
    for (auto&& [name, value] : as_table(*node, key)) {
      placed.push_back({value.source().begin, {std::string(name.str()), texts(value)}});
      if (placed.back().second.second.empty()) wrong(value, fmt::format("'{}' needs at least one value", name.str()));
    }
    std::ranges::sort(placed, [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [place, axis] : placed) axes.push_back(std::move(axis));
    return axes;
  }
  void read(const std::string& key, std::vector<std::int64_t>& field) {
    const toml::node* node = get(key);
    if (node == nullptr) return;
    const toml::array* array = node->as_array();
    if (array == nullptr || array->empty()) wrong(*node, fmt::format("'{}' must be a list of whole numbers", key));
    field.clear();
    for (const toml::node& one : *array) {
      const auto number = one.value_exact<std::int64_t>();
      if (!number) wrong(one, fmt::format("'{}' must be a list of whole numbers", key));
      field.push_back(*number);
    }
  }
  std::vector<Table> tables(const std::string& key) {
    std::vector<Table> all;
    const toml::node* node = get(key);
    if (node == nullptr) return all;
    if (!node->is_array_of_tables()) wrong(*node, fmt::format("'{}' must be tables, [[{}]]", key, key));
    for (const toml::node& one : *node->as_array()) all.emplace_back(*one.as_table(), file_);
    return all;
  }
  void refuse_others(const std::string& where) const {
    for (auto&& [name, value] : table_) {
      const std::string key(name.str());
      if (known_.contains(key)) continue;
      const std::string nearest = nearest_name(key, {known_.begin(), known_.end()});
      wrong(value,
            fmt::format("unknown key '{}' in {}{}", key, where, nearest.empty() ? "" : ": did you mean '" + nearest + "'?"));
    }
  }

 private:
  const toml::table& as_table(const toml::node& node, const std::string& key) const {
    if (!node.is_table()) wrong(node, fmt::format("'{}' must be a table", key));
    return *node.as_table();
  }
  std::string text(const toml::node& node) const {
    if (const auto text = node.value_exact<std::string>()) return *text;
    if (const auto whole = node.value_exact<std::int64_t>()) return std::to_string(*whole);
    if (const auto number = node.value_exact<double>()) return fmt::format("{}", *number);
    if (const auto truth = node.value_exact<bool>()) return *truth ? "true" : "false";
    wrong(node, "must be a text, a number, true, false, or a list of them");
  }
  std::vector<std::string> texts(const toml::node& node) const {
    std::vector<std::string> all;
    if (const toml::array* array = node.as_array()) {
      for (const toml::node& one : *array) all.push_back(text(one));
    } else {
      all.push_back(text(node));
    }
    return all;
  }

  const toml::table& table_;
  std::string file_;
  std::set<std::string> known_;
};

Method read_method(Table table) {
  Method method;
  table.read("name", method.name);
  method.options = table.flags("options");
  method.grid = table.axes("grid");
  table.refuse_others("[[method]]");
  return method;
}

Column read_column(Table table) {
  Column column;
  table.read("name", column.name);
  table.read("formula", column.formula);
  table.read("by", column.by);
  table.read("values", column.values);
  table.read("digits", column.digits);
  table.refuse_others("[[column]]");
  return column;
}

Picture read_picture(Table table) {
  Picture p;
  for (auto [key, field] : {std::pair{"file", &p.file},
                            {"title", &p.title},
                            {"kind", &p.kind},
                            {"x", &p.x},
                            {"y", &p.y},
                            {"z", &p.z},
                            {"x-label", &p.x_label},
                            {"y-label", &p.y_label}}) {
    table.read(key, *field);
  }
  table.read("split", p.split);
  table.read("only", p.only);
  table.read("methods", p.methods);
  table.read("log-x", p.log_x);
  table.read("log-y", p.log_y);
  table.refuse_others("[[picture]]");
  return p;
}

void replace_axes(Axes& axes, const Axes& with) {
  for (const auto& [name, values] : with) {
    const auto found = std::ranges::find(axes, name, [](const auto& axis) { return axis.first; });
    if (found == axes.end()) {
      axes.push_back({name, values});
    } else {
      found->second = values;
    }
  }
}

void read_sizes(Table& table, Experiment& e) {
  for (const auto& [flag, values] : table.flags("options")) e.options[flag] = values;
  replace_axes(e.grid, table.axes("grid"));
  replace_axes(e.vary, table.axes("vary"));
  table.read("seeds", e.seeds);
}

/// {name} becomes the value on that axis, {=formula} the value of a formula of axes.
std::string with_values(const std::string& text, const std::vector<std::pair<std::string, std::string>>& values) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t open = text.find('{', at), close = text.find('}', open);
    if (open == std::string::npos || close == std::string::npos) return out + text.substr(at);
    const std::string inside = text.substr(open + 1, close - open - 1);
    out += text.substr(at, open - at);
    at = close + 1;
    const auto found = std::ranges::find(values, inside, [](const auto& value) { return value.first; });
    if (found != values.end()) {
      out += found->second;
    } else if (inside.starts_with("=")) {
      out += fmt::format("{}", evaluate_formula(inside.substr(1), numbers_of(values)));
    } else {
      throw UsageError("'" + text + "': no axis is called '" + inside + "'");
    }
  }
  return out;
}

}  // namespace

Experiment load_experiment(const std::filesystem::path& file, bool full) {
  toml::table document;
  try {
    const std::string text = toml_file(file);
    refuse_deep_keys(text, file.string());
    document = toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    const auto place = error.source().begin;
    throw UsageError(fmt::format("{}:{}:{}: {}", file.string(), place.line, place.column, error.description()));
  }
  Table table(document, file.string());
  Experiment e;
  table.read("title", e.title);
  table.read("text", e.text);
  table.read("command", e.command);
  table.read("baseline", e.baseline);
  table.read("across", e.across);
  read_sizes(table, e);
  for (Table& one : table.tables("method")) e.methods.push_back(read_method(one));
  for (Table& one : table.tables("column")) e.columns.push_back(read_column(one));
  for (Table& one : table.tables("picture")) e.pictures.push_back(read_picture(one));
  if (const toml::node* node = table.get("full"); node != nullptr && node->is_table()) {
    Table sizes(*node->as_table(), file.string());
    Experiment ignored;
    read_sizes(sizes, full ? e : ignored);
    sizes.refuse_others("[full]");
  }
  table.refuse_others("an experiment");
  std::set<std::string> names;
  for (const Method& method : e.methods) {
    if (names.insert(method.name).second) continue;
    throw UsageError(fmt::format("{}: two methods are called '{}': their runs would share folders", file.string(), method.name));
  }
  if (e.methods.empty()) throw UsageError(file.string() + ": an experiment needs at least one [[method]]");
  if (e.command != "simulate" && e.command != "train") {
    throw UsageError(file.string() + ": command '" + e.command + "' is neither simulate nor train");
  }
  check(e, file.string());
  return e;
}

std::string Trial::name() const {
  std::string text = method;
  for (const auto& [axis, value] : point) text += fmt::format("-{}={}", axis, value);
  text += fmt::format("-seed={}", seed);
  std::ranges::replace_if(
      text, [](unsigned char c) { return !std::isalnum(c) && std::string_view("-=.+").find(c) == std::string::npos; }, '_');
  return text;
}

std::string Trial::at(const std::string& axis) const {
  const auto found = std::ranges::find(point, axis, [](const auto& value) { return value.first; });
  return found == point.end() ? "" : found->second;
}

std::vector<Trial> trials_of(const Experiment& e) {
  std::vector<Trial> all;
  for (const Method& method : e.methods) {
    Axes axes = e.vary;
    const std::size_t placeholders = axes.size();
    for (const auto& axis : e.grid) axes.push_back(axis);
    replace_axes(axes, method.grid);
    std::vector<std::size_t> digit(axes.size(), 0);
    for (bool more = true; more;) {
      Trial point{.method = method.name, .flags = e.options};
      for (const auto& [flag, values] : method.options) point.flags[flag] = values;
      for (std::size_t i = 0; i < axes.size(); ++i) {
        const std::string& value = axes[i].second[digit[i]];
        point.point.push_back({axes[i].first, value});
        if (i >= placeholders) point.flags[axes[i].first] = {value};
      }
      for (auto& [flag, values] : point.flags) {
        for (std::string& value : values) value = with_values(value, point.point);
      }
      for (const std::int64_t seed : e.seeds) {
        all.push_back(point);
        all.back().seed = seed;
        all.back().flags["seed"] = {std::to_string(seed)};
      }
      more = false;
      for (std::size_t i = axes.size(); i-- > 0 && !more;) {
        if (++digit[i] < axes[i].second.size()) {
          more = true;
        } else {
          digit[i] = 0;
        }
      }
    }
  }
  return all;
}

}  // namespace rubato
