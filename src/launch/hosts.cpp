#include "launch/hosts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <sstream>

#include "rubato/core/error.h"
#include "rubato/core/numbers.h"
#include "rubato/core/read_file.h"

namespace rubato {
namespace {

constexpr long long most_slots = 65536;

Host parse_host(const std::string& line, const std::string& where) {
  std::istringstream words(line);
  Host host;
  words >> host.name;
  if (host.name == "127.0.0.1") host.name = this_machine;
  // The starter of remote commands would take it for one of its own flags.
  if (host.name.starts_with('-')) throw UsageError(fmt::format("{}: '{}' is no name of a host", where, host.name));
  for (std::string word; words >> word;) {
    const auto slots = word.starts_with("slots=") ? whole_number(word.substr(6)) : std::nullopt;
    if (!slots || *slots < 1 || *slots > most_slots) {
      throw UsageError(fmt::format("{}: '{}' is not slots=N with N of at least 1; a line is HOST [slots=N]", where, word));
    }
    host.slots = static_cast<int>(*slots);
  }
  return host;
}

bool blank(const std::string& line) {
  return std::all_of(line.begin(), line.end(), [](unsigned char letter) { return std::isspace(letter) != 0; });
}

}  // namespace

std::vector<Host> parse_hosts(const std::string& text, const std::string& source) {
  std::vector<Host> hosts;
  std::istringstream lines(text);
  int count = 0;
  for (std::string line; std::getline(lines, line);) {
    ++count;
    line = line.substr(0, line.find('#'));
    if (!blank(line)) hosts.push_back(parse_host(line, fmt::format("{}, line {}", source, count)));
  }
  if (hosts.empty()) throw UsageError(source + " names no host: a line is HOST [slots=N]");
  return hosts;
}

std::vector<Host> read_hosts(const std::filesystem::path& file) {
  return parse_hosts(whole_file(file), file.string());
}

std::vector<std::string> fill_slots(const std::vector<Host>& hosts, int workers) {
  std::vector<std::string> host_of_worker;
  int slots = 0;
  for (const Host& host : hosts) {
    slots += host.slots;
    for (int i = 0; i < host.slots && static_cast<int>(host_of_worker.size()) < workers; ++i) host_of_worker.push_back(host.name);
  }
  if (slots < workers) {
    throw UsageError(
        fmt::format("{} workers, but the hosts have {} slots: give a host more of them (HOST slots=N) or start fewer "
                    "workers",
                    workers, slots));
  }
  return host_of_worker;
}

LocalPlace local_place(const std::vector<std::string>& host_of_worker, int rank) {
  const auto self = host_of_worker.begin() + rank;
  return {.rank = static_cast<int>(std::count(host_of_worker.begin(), self, *self)),
          .world = static_cast<int>(std::count(host_of_worker.begin(), host_of_worker.end(), *self))};
}

}  // namespace rubato
