#include "rubato/core/option_values.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "rubato/core/ranges.h"

#include "rubato/core/error.h"

namespace rubato {

const char* type_name(const OptionValue& value) {
  static constexpr const char* names[] = {"true or false", "a whole number", "a number", "text"};
  return names[value.held().index()];
}

std::string to_text(const OptionValue& value) {
  return std::visit([](const auto& held) { return fmt::format("{}", held); }, value.held());
}

const OptionValue* OptionValues::find(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

const OptionValue& OptionValues::at(std::string_view name) const {
  const OptionValue* value = find(name);
  if (value == nullptr) throw std::logic_error(fmt::format("nobody has given the option '{}' a value", name));
  return *value;
}

void OptionValues::wrong_type(std::string_view name) const {
  throw std::logic_error(fmt::format("the option '{}' is {}, and was read as something else", name, type_name(at(name))));
}

void check_range(std::string_view flag, double value, double low, double high) {
  const bool fits = std::isfinite(value) && std::abs(value) <= std::numeric_limits<float>::max();  // as tensors hold it
  if (fits && value >= low && value <= high) return;
  const bool too_large = std::isfinite(value) && !fits && value >= low;
  throw UsageError(fmt::format("--{} {} must be {}", flag, value,
                               std::isfinite(high)  ? fmt::format("between {} and {}", low, high)
                               : too_large          ? "a number of 32 bits, at most 3.4e38"
                               : std::isfinite(low) ? fmt::format("a finite number of at least {}", low)
                                                    : "a finite number"));
}

void check_whole_range(std::string_view flag, std::int64_t value, double low, double high) {
  const auto given = static_cast<double>(value);
  if (given >= low && given <= high) return;
  throw UsageError(
      fmt::format("--{} {} must be a whole number {}", flag, value,
                  std::isfinite(high) ? fmt::format("between {} and {:.0f}", low, high) : fmt::format("of at least {}", low)));
}

OptionValue fitted(const OptionSpec& spec, const OptionValue& value) {
  const auto* whole = std::get_if<std::int64_t>(&value.held());
  const bool widened = whole != nullptr && std::holds_alternative<double>(spec.usual.held());
  const OptionValue same = widened ? OptionValue(static_cast<double>(*whole)) : value;
  if (!same.same_type(spec.usual)) {
    throw UsageError(fmt::format("--{} must be {}, which {} is not", spec.name, type_name(spec.usual), to_text(value)));
  }
  if (const auto* real = std::get_if<double>(&same.held())) check_range(spec.name, *real, spec.low, spec.high);
  if (whole != nullptr && !widened) check_whole_range(spec.name, *whole, spec.low, spec.high);
  return same;
}

OptionValues own_values(const std::vector<OptionSpec>& specs, const OptionValues& given) {
  OptionValues own;
  for (const OptionSpec& spec : specs) {
    if (const OptionValue* value = given.find(spec.name)) {
      own.set(spec.name, fitted(spec, *value));
    } else if (!spec.worked_out) {
      own.set(spec.name, spec.usual);
    }
  }
  return own;
}

}  // namespace rubato
