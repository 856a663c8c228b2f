#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "rubato/core/error.h"

namespace rubato {

/// How deep the JSON that is read here may be nested; nothing that rubato writes comes near it.
inline constexpr int deepest_json = 32;

/// What the library says of a wrong type or a missing key, without its name for the exception.
inline std::string reason_of(const nlohmann::json::exception& error) {
  const std::string text = error.what();
  const std::size_t end = text.find("] ");
  return end == std::string::npos ? text : text.substr(end + 2);
}

/// `text`, which must be one JSON object, nested at most `deepest_json` deep. DataError, with `name` and the line, where it is
/// not.
template <class Json = nlohmann::json>
Json json_object(const std::string& text, const std::string& name) {
  const auto refuse = [&](const std::string& why) { throw DataError(fmt::format("{} {}", name, why)); };
  Json json;
  try {
    json = Json::parse(text, [&](int depth, typename Json::parse_event_t, Json&) {
      if (depth > deepest_json) refuse(fmt::format("is nested more than {} deep", deepest_json));
      return true;
    });
  } catch (const nlohmann::json::parse_error& error) {
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(error.byte, text.size()));
    refuse(fmt::format("is no JSON, or cut off, at line {}", 1 + std::count(text.begin(), end, '\n')));
  } catch (const nlohmann::json::exception&) {
    refuse("has a number that is too large");
  }
  if (!json.is_object()) refuse("must be an object, {...}");
  return json;
}

}  // namespace rubato
