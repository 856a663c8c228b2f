#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "rubato/config/entries.h"
#include "rubato/config/options.h"
#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/core/toml_text.h"

namespace rubato {
namespace {

struct OptionWriter {
  toml::table& line;

  template <class T>
  void operator()(std::string_view key, const T& value) const {
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
      line.insert_or_assign(key, value);
    } else if constexpr (std::is_integral_v<T>) {
      line.insert_or_assign(key, static_cast<std::int64_t>(value));
    } else {
      line.insert_or_assign(key, static_cast<double>(value));
    }
  }
  template <class T>
  void operator()(std::string_view key, const std::optional<T>& value) const {
    if (value) (*this)(key, *value);
  }
  void operator()(std::string_view key, const std::vector<std::string>& values) const {
    toml::array array;
    for (const std::string& value : values) array.push_back(value);
    line.insert_or_assign(key, std::move(array));
  }
  void operator()(std::string_view key, const OptionValue& value) const {
    std::visit([&](const auto& held) { (*this)(key, held); }, value.held());
  }
};

/// A line of TOML; empty where there is nothing to say.
template <class T>
std::string line_of(std::string_view key, const T& value) {
  toml::table line;
  OptionWriter{line}(key, value);
  if (line.empty()) return "";
  std::ostringstream text;
  text << line << "\n";
  return text.str();
}

/// Where an option stands in a document: in a table ("" for the top level) and, in files of earlier versions, at the top level.
struct Place {
  std::string table, key, flat;
};

Place place_of(const OptionInfo& info) {
  const std::string table = table_of(info.group), name = info.name;
  return {table, name == table ? "name" : name, name};
}

/// Reads values of nodes, or says what they must be.
class NodeReader {
 public:
  NodeReader(const std::string& file, const std::string& key, const toml::node& node) : file_(file), key_(key), node_(node) {}

  template <class T>
  void operator()(T& field) const {
    if constexpr (std::is_same_v<T, bool>) {
      if (!node_.is_boolean()) wrong(node_, "true or false");
      field = **node_.as_boolean();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!node_.is_string()) wrong(node_, "a string in quotes");
      field = **node_.as_string();
    } else if constexpr (std::is_integral_v<T>) {
      if (!node_.is_integer()) wrong(node_, "a whole number");
      const std::int64_t value = **node_.as_integer();
      if (!std::in_range<T>(value)) wrong(node_, "a whole number in range");
      field = static_cast<T>(value);
    } else {
      const auto value = node_.is_number() ? node_.value<double>() : std::nullopt;
      if (!value) wrong(node_, "a number");
      field = *value;
    }
  }
  template <class T>
  void operator()(std::optional<T>& field) const {
    T value{};
    (*this)(value);
    field = value;
  }
  void operator()(std::vector<std::string>& field) const {
    if (!node_.is_array()) wrong(node_, "a list of strings");
    field.clear();
    for (const toml::node& item : *node_.as_array()) {
      if (!item.is_string()) wrong(item, "a list of strings");
      field.push_back(**item.as_string());
    }
  }

 private:
  [[noreturn]] void wrong(const toml::node& node, const char* wanted) const {
    const toml::source_position at = node.source().begin;
    throw UsageError(fmt::format("{}:{}:{}: '{}' must be {}", file_, at.line, at.column, key_, wanted));
  }

  const std::string& file_;
  const std::string& key_;
  const toml::node& node_;
};

/// A document that options are taken out of; what is left is unknown.
class Document {
 public:
  Document(toml::table& root, const std::string& file) : root_(root), file_(file) {}

  /// Calls `read` with a NodeReader if the option is there.
  template <class Read>
  void take(const Place& place, Read&& read) {
    known_[place.table].push_back(place.key);
    if (!place.table.empty()) known_flat_.push_back(place.flat);
    toml::table* table = place.table.empty() ? &root_ : root_[place.table].as_table();
    const toml::node* node = table != nullptr ? table->get(place.key) : nullptr;
    const toml::node* flat = place.table.empty() ? nullptr : root_.get(place.flat);
    if (flat == table) flat = nullptr;  // [schedule] is no old key 'schedule'
    if (node != nullptr && flat != nullptr) {
      refuse(flat->source().begin, fmt::format("'{}' stands here and in [{}]: give it once", place.flat, place.table));
    }
    if (node != nullptr) {
      read(NodeReader(file_, place.key, *node));
      table->erase(place.key);
    } else if (flat != nullptr) {
      read(NodeReader(file_, place.flat, *flat));
      root_.erase(place.flat);
    }
  }

  /// UsageError for the first key that nobody took. `options`: what was read.
  void refuse_rest(const TrainOptions& options) const {
    std::optional<Unknown> first;
    const auto look_at = [&](const toml::table& rest, const std::string& table) {
      for (const auto& [key, node] : rest) {
        const bool is_table_of_options = table.empty() && known_.contains(std::string(key.str())) && node.is_table();
        if (is_table_of_options) continue;
        if (!first || key.source().begin < first->at) first = {key.source().begin, std::string(key.str()), table};
      }
    };
    look_at(root_, "");
    for (const EntryKind& kind : entry_kinds()) {
      if (const toml::table* rest = root_[kind.name].as_table()) look_at(*rest, kind.name);
    }
    if (first) refuse_unknown(*first, options);
  }

 private:
  struct Unknown {
    toml::source_position at;
    std::string key, table;
  };

  [[noreturn]] void refuse(const toml::source_position& at, const std::string& why) const {
    throw UsageError(fmt::format("{}:{}:{}: {}", file_, at.line, at.column, why));
  }
  [[noreturn]] void refuse_unknown(const Unknown& unknown, const TrainOptions& options) const {
    for (const EntryKind& kind : entry_kinds()) {
      if (kind.name != unknown.table) continue;
      find_entry(kind, options.*kind.chosen);  // says so if the key is that of an entry which is not there
    }
    for (const auto& [table, keys] : known_) {
      if (unknown.table == table || std::ranges::find(keys, unknown.key) == keys.end() || unknown.key == "name") continue;
      refuse(unknown.at, fmt::format("'{}' does not belong into [{}]; it belongs {}", unknown.key, unknown.table,
                                     table.empty() ? "to the top level, before all tables" : "into [" + table + "]"));
    }
    std::vector<std::string> known = known_.at(unknown.table);
    if (unknown.table.empty()) known.insert(known.end(), known_flat_.begin(), known_flat_.end());
    refuse(unknown.at, unknown_name("key", unknown.key, known).what());
  }

  toml::table& root_;
  const std::string& file_;
  std::map<std::string, std::vector<std::string>> known_;  // by table
  std::vector<std::string> known_flat_;                    // those of tables, by their flat keys
};

toml::table parsed(const std::string& text, const std::string& file_name) {
  refuse_deep_keys(text, file_name);
  try {
    return toml::parse(text, file_name);
  } catch (const toml::parse_error& error) {
    throw UsageError(fmt::format("{}:{}:{}: not TOML: {}", file_name, error.source().begin.line, error.source().begin.column,
                                 error.description()));
  }
}

/// Of the type of `usual`.
OptionValue value_of(const NodeReader& read, const OptionValue& usual) {
  return std::visit(
      [&](auto held) {
        read(held);
        return OptionValue(std::move(held));
      },
      usual.held());
}

}  // namespace

std::string to_toml(const TrainOptions& options) {
  std::map<std::string, std::string> text;  // by table
  visit_options(options, [&](const OptionInfo& info, const auto& value) {
    if (options.steps && std::string_view(info.name) == "epochs") return;  // the file says how long the run is once
    const Place place = place_of(info);
    text[place.table] += line_of(place.key, value);
  });
  const std::vector<EntryOption> of_entries = entry_options();
  for (const auto& [name, value] : options.values) {
    const auto option = std::ranges::find(of_entries, name, [](const EntryOption& one) { return one.spec.name; });
    if (option == of_entries.end()) throw UsageError("no entry has an option '" + name + "'");
    text[option->kind->name] += line_of(name, value);
  }
  std::string document = text[""];
  for (const EntryKind& kind : entry_kinds()) document += "\n[" + kind.name + "]\n" + text[kind.name];
  return document;
}

TrainOptions from_toml(const std::string& text, const std::string& file_name, TrainOptions options) {
  toml::table table = parsed(text, file_name);
  if (table.contains("epochs") && table.contains("steps")) {
    throw UsageError(file_name + ": 'epochs' and 'steps' both say how long the run is: give one of them");
  }
  if (table.contains("epochs")) options.steps.reset();
  Document document(table, file_name);
  visit_options(options, [&](const OptionInfo& info, auto& field) {
    document.take(place_of(info), [&](const NodeReader& read) { read(field); });
  });
  for (const EntryOption& option : entry_options()) {
    const std::string& name = option.spec.name;
    document.take({option.kind->name, name, name},
                  [&](const NodeReader& read) { options.values.set(name, value_of(read, option.spec.usual)); });
  }
  document.refuse_rest(options);
  return options;
}

}  // namespace rubato
