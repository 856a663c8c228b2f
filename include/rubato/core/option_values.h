#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace rubato {

/// The value of an option that an entry of a registry brings: true or false, a whole number, a real number, or text.
class OptionValue {
 public:
  using Held = std::variant<bool, std::int64_t, double, std::string>;

  template <std::same_as<bool> T>
  OptionValue(T value) : held_(value) {}
  /// std::logic_error for a number that 64 signed bits do not hold.
  template <std::integral T>
  requires(!std::same_as<T, bool>) OptionValue(T value) : held_(static_cast<std::int64_t>(value)) {
    if (!std::in_range<std::int64_t>(value)) throw std::logic_error("a whole number beyond 64 signed bits as value of an option");
  }
  template <std::floating_point T>
  OptionValue(T value) : held_(static_cast<double>(value)) {}
  OptionValue(const char* text) : held_(std::string(text)) {}
  OptionValue(std::string text) : held_(std::move(text)) {}

  const Held& held() const { return held_; }
  bool same_type(const OptionValue& other) const { return held_.index() == other.held_.index(); }
  bool operator==(const OptionValue&) const = default;

 private:
  Held held_;
};

/// "true or false", "a whole number", "a number", "text": what a value of the type of `value` is called in a sentence.
const char* type_name(const OptionValue& value);
/// As on a command line.
std::string to_text(const OptionValue& value);

/// Values of options by the names of their flags, without dashes.
class OptionValues {
 public:
  OptionValues() = default;
  OptionValues(std::initializer_list<std::pair<const std::string, OptionValue>> values) : values_(values) {}

  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// Null where the option has no value here.
  const OptionValue* find(std::string_view name) const;
  void set(const std::string& name, OptionValue value) { values_.insert_or_assign(name, std::move(value)); }
  void erase(const std::string& name) { values_.erase(name); }

  /// The value of `name` as bool, a whole number, a real number or std::string. std::logic_error where there is none, or one of
  /// another type, or a whole number that T does not hold. What is registered with an entry always has a value when the entry's
  /// functions are called.
  template <class T>
  T get(std::string_view name) const {
    const OptionValue::Held& held = at(name).held();
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
      if (const T* value = std::get_if<T>(&held)) return *value;
    } else if constexpr (std::is_integral_v<T>) {
      const auto* value = std::get_if<std::int64_t>(&held);
      if (value != nullptr && std::in_range<T>(*value)) return static_cast<T>(*value);
    } else {
      static_assert(std::is_floating_point_v<T>, "options are bool, whole numbers, real numbers or std::string");
      if (const auto* value = std::get_if<double>(&held)) return static_cast<T>(*value);
      if (const auto* value = std::get_if<std::int64_t>(&held)) return static_cast<T>(*value);
    }
    wrong_type(name);
  }

  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }
  bool operator==(const OptionValues&) const = default;

 private:
  const OptionValue& at(std::string_view name) const;
  [[noreturn]] void wrong_type(std::string_view name) const;

  std::map<std::string, OptionValue, std::less<>> values_;
};

/// That another option of the same entry has a certain value.
struct OptionCondition {
  std::string option;
  OptionValue value;

  bool operator==(const OptionCondition&) const = default;
};

/// An option that an entry of a registry brings: its flag, its key in TOML, its line in --help, its part in what makes two runs
/// the same.
struct OptionSpec {
  std::string name;                                       ///< of the flag, without dashes; lower-case letters, digits and dashes
  OptionValue usual;                                      ///< the default; it decides the type
  std::string help;                                       ///< one line: meaning and unit
  double low = -std::numeric_limits<double>::infinity();  ///< numbers: smallest value allowed
  double high = std::numeric_limits<double>::infinity();  ///< numbers: largest value allowed
  bool identity = true;                                   ///< a resumed run must have the same value
  bool of_replicas = false;                               ///< except where it goes on with another number of replicas
  bool per_replica = false;                               ///< and then `complete` works it out anew
  /// There is no default: the entry's `complete` works the value out where none is given. `usual` says the type alone.
  bool worked_out = false;
  /// The entry reads it only then; else it is refused. Entries that share an option may differ in this.
  std::optional<OptionCondition> only_if = std::nullopt;

  bool operator==(const OptionSpec&) const = default;
};

/// What the options of an entry may depend on besides each other.
struct RunFacts {
  int replicas = 1;          ///< >= 1
  double learning_rate = 0;  ///< base rate of the optimizer; 0: not known
};

/// Gives values to options that depend on others.
using CompleteOptions = std::function<void(OptionValues& values, const RunFacts& facts)>;
/// Throws UsageError for values that cannot work together. Types and ranges have been checked.
using CheckOptions = std::function<void(const OptionValues& values, const RunFacts& facts)>;

/// UsageError unless `value` is a finite number from `low` to `high`.
void check_range(std::string_view flag, double value, double low, double high);

/// `value` as a value of `spec`: a whole number becomes real where that is the type. UsageError for another type or a number out
/// of range.
OptionValue fitted(const OptionSpec& spec, const OptionValue& value);

/// The values of `specs` alone: as given, else the default. UsageError as `fitted`.
OptionValues own_values(const std::vector<OptionSpec>& specs, const OptionValues& given);

}  // namespace rubato
