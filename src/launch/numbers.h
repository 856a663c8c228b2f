#pragma once

#include <charconv>
#include <optional>
#include <string_view>

namespace rubato {

/// The whole of `text` as a whole number; nothing if it is none.
inline std::optional<long long> whole_number(std::string_view text) {
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace rubato
