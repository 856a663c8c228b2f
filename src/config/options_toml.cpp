#include <fmt/format.h>

#include <toml++/toml.h>
#include <cstdint>
#include <sstream>
#include <string_view>

#include "rubato/config/options.h"
#include "rubato/config/options_table.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

struct OptionWriter {
  toml::table& table;

  template <class T>
  void operator()(const OptionInfo& info, const T& value) {
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
      table.insert_or_assign(info.name, value);
    } else if constexpr (std::is_integral_v<T>) {
      table.insert_or_assign(info.name, static_cast<std::int64_t>(value));
    } else {
      table.insert_or_assign(info.name, static_cast<double>(value));
    }
  }
  template <class T>
  void operator()(const OptionInfo& info, const std::optional<T>& value) {
    if (value) (*this)(info, *value);
  }
  void operator()(const OptionInfo& info, const std::vector<std::string>& values) {
    toml::array array;
    for (const std::string& value : values) array.push_back(value);
    table.insert_or_assign(info.name, std::move(array));
  }
};

/// Takes every key it knows out of the table; what is left is unknown.
struct OptionReader {
  toml::table& table;
  const std::string& file;
  std::vector<std::string>& known;

  template <class T>
  void operator()(const OptionInfo& info, T& field) {
    known.push_back(info.name);
    const toml::node* node = table.get(info.name);
    if (node == nullptr) return;
    read(info, *node, field);
    table.erase(info.name);
  }

 private:
  [[noreturn]] void wrong(const OptionInfo& info, const toml::node& node, const char* wanted) const {
    throw UsageError(
        fmt::format("{}:{}:{}: '{}' must be {}", file, node.source().begin.line, node.source().begin.column, info.name, wanted));
  }
  template <class T>
  void read(const OptionInfo& info, const toml::node& node, T& field) const {
    if constexpr (std::is_same_v<T, bool>) {
      if (!node.is_boolean()) wrong(info, node, "true or false");
      field = **node.as_boolean();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!node.is_string()) wrong(info, node, "a string in quotes");
      field = **node.as_string();
    } else if constexpr (std::is_integral_v<T>) {
      if (!node.is_integer()) wrong(info, node, "a whole number");
      const std::int64_t value = **node.as_integer();
      if (!std::in_range<T>(value)) wrong(info, node, "a whole number in range");
      field = static_cast<T>(value);
    } else {
      const auto value = node.is_number() ? node.value<double>() : std::nullopt;
      if (!value) wrong(info, node, "a number");
      field = *value;
    }
  }
  template <class T>
  void read(const OptionInfo& info, const toml::node& node, std::optional<T>& field) const {
    T value{};
    read(info, node, value);
    field = value;
  }
  void read(const OptionInfo& info, const toml::node& node, std::vector<std::string>& field) const {
    if (!node.is_array()) wrong(info, node, "a list of strings");
    field.clear();
    for (const toml::node& item : *node.as_array()) {
      if (!item.is_string()) wrong(info, item, "a list of strings");
      field.push_back(**item.as_string());
    }
  }
};

}  // namespace

std::string to_toml(const TrainOptions& options) {
  std::ostringstream text;
  visit_options(options, [&](const OptionInfo& info, const auto& value) {
    if (options.steps && std::string_view(info.name) == "epochs") return;  // the file says how long the run is once
    toml::table line;
    OptionWriter{line}(info, value);
    if (!line.empty()) text << line << "\n";
  });
  return text.str();
}

TrainOptions from_toml(const std::string& text, const std::string& file_name, TrainOptions options) {
  toml::table table;
  try {
    table = toml::parse(text, file_name);
  } catch (const toml::parse_error& error) {
    throw UsageError(fmt::format("{}:{}:{}: not TOML: {}", file_name, error.source().begin.line, error.source().begin.column,
                                 error.description()));
  }
  if (table.contains("epochs") && table.contains("steps")) {
    throw UsageError(file_name + ": 'epochs' and 'steps' both say how long the run is: give one of them");
  }
  if (table.contains("epochs")) options.steps.reset();
  std::vector<std::string> known;
  visit_options(options, OptionReader{table, file_name, known});
  if (!table.empty()) {
    const auto first = table.begin();
    const UsageError unknown = unknown_name("key", first->first.str(), known);
    throw UsageError(fmt::format("{}:{}: {}", file_name, first->second.source().begin.line, unknown.what()));
  }
  return options;
}

}  // namespace rubato
