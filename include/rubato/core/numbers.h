#pragma once

#include <charconv>
#include <optional>
#include <string_view>

namespace rubato {

/// The whole of `text` as a number; false if it is none.
template <class Number>
bool read_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// The whole of `text` as a whole number; nothing if it is none.
inline std::optional<long long> whole_number(std::string_view text) {
  long long value = 0;
  if (!read_number(text, value)) return std::nullopt;
  return value;
}

}  // namespace rubato
