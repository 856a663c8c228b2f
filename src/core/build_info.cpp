#include "rubato/core/build_info.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>
#include <thread>
#include <vector>

namespace rubato {
namespace {

/// What follows `key` and `separator` on the first line of `file` that begins with `key`; empty where there is none.
std::string value_in(const char* file, const std::string& key, char separator) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(key)) continue;
    const auto at = line.find(separator);
    if (at == std::string::npos) continue;
    std::string value = line.substr(at + 1);
    const auto first = value.find_first_not_of(" \t\"");
    const auto last = value.find_last_not_of(" \t\"");
    return first == std::string::npos ? "" : value.substr(first, last - first + 1);
  }
  return "";
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

/// Those that are not empty.
std::string listed(std::vector<std::string> parts) {
  std::erase(parts, "");
  return printable(fmt::format("{}", fmt::join(parts, ", ")));
}

}  // namespace

std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char letter) { return letter < ' ' || letter > '~'; }, '?');
  return text;
}

const BuildInfo& build_info() {
  static const BuildInfo info{.version = RUBATO_VERSION,
                              .libtorch = RUBATO_TORCH_VERSION,
                              .compiler = RUBATO_COMPILER,
                              .type = RUBATO_BUILD_TYPE,
                              .platform = RUBATO_PLATFORM,
                              .commit = RUBATO_COMMIT};
  return info;
}

std::string machine_info() {
  const unsigned processors = std::thread::hardware_concurrency();
  return listed({value_in("/proc/cpuinfo", "model name", ':'),
                 processors == 0 ? "" : fmt::format("{} processor{}", processors, processors == 1 ? "" : "s")});
}

std::string host_info() {
  return listed({host_name(), value_in("/etc/os-release", "PRETTY_NAME", '='), machine_info()});
}

std::string version_text(const std::string& prefix) {
  const BuildInfo& info = build_info();
  const std::string commit = info.commit[0] == '\0' ? "" : fmt::format(", commit {}", info.commit);
  return fmt::format("{0}rubato {1}\n{0}libtorch {2}\n{0}built with {3}, {4}, on {5}{6}\n{0}host {7}", prefix, info.version,
                     info.libtorch, info.compiler, info.type, info.platform, commit, host_info());
}

}  // namespace rubato
