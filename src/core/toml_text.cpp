#include "rubato/core/toml_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>

#include "rubato/core/error.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

constexpr std::size_t longest = std::size_t{4} << 20;
constexpr int most_parts = 32;

/// The position behind the string that begins at `at`; of one that does not end, the end of the text.
std::size_t behind_string(std::string_view text, std::size_t at) {
  const char quote = text[at];
  const std::string three(3, quote);
  const bool is_long = text.substr(at).starts_with(three);
  const std::string_view end = is_long ? std::string_view(three) : std::string_view(three).substr(0, 1);
  for (std::size_t i = at + end.size(); i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text.substr(i).starts_with(end)) {
      return i + end.size();
    } else if (!is_long && text[i] == '\n') {
      return i;
    }
  }
  return text.size();
}

}  // namespace

std::string toml_file(const fs::path& path) {
  const auto refuse = [&](const std::string& why) { throw DataError("cannot read " + path.string() + ": " + why); };
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) refuse("it is a folder");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(std::strerror(errno));
  std::string text(longest + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) refuse(errno != 0 ? std::strerror(errno) : "the system gives no reason");
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > longest) refuse("it is longer than 4 MiB, which no configuration is");
  return text;
}

void refuse_deep_keys(const std::string& text, const std::string& name) {
  int parts = 1;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' || c == '\'') {
      at = behind_string(text, at);
      continue;
    }
    if (c == '#') {
      at = std::min(text.find('\n', at), text.size());
      continue;
    }
    if (std::string_view("=,{}[]\n").find(c) != std::string_view::npos) parts = 1;
    if (c == '.' && ++parts > most_parts) {
      const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
      throw UsageError(fmt::format("{}:{}: a key of more than {} parts", name, line, most_parts));
    }
    ++at;
  }
}

}  // namespace rubato
