#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace rubato {

struct Host {
  std::string name;
  int slots = 1;  ///< workers that it takes
  bool operator==(const Host&) const = default;
};

/// This machine's name in a list of hosts: its processes are started directly.
inline constexpr const char* this_machine = "localhost";

/// Lines "HOST [slots=N]"; `#` begins a comment. UsageError naming `source` and the line.
std::vector<Host> parse_hosts(const std::string& text, const std::string& source);
std::vector<Host> read_hosts(const std::filesystem::path& file);

/// The host of each worker: hosts are filled in their order. UsageError when they have fewer slots than there are workers.
std::vector<std::string> fill_slots(const std::vector<Host>& hosts, int workers);

/// Where a worker stands among those of its host.
struct LocalPlace {
  int rank = 0;
  int world = 1;
  bool operator==(const LocalPlace&) const = default;
};
LocalPlace local_place(const std::vector<std::string>& host_of_worker, int rank);

}  // namespace rubato
