#include "process_mode.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string_view>

#include "rubato/core/error.h"

extern char** environ;

namespace rubato::app {
namespace {

using namespace std::chrono_literals;
constexpr int most_coordinators = 10;
constexpr auto time_to_say_so = 2s, longest_farewell = 10s;

bool is_loopback(const std::string& address) {
  return address == "localhost" || address.rfind("127.", 0) == 0;
}

std::string numeric(const std::string& address) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0 || found == nullptr) {
    throw UsageError("the coordinator's address '" + address +
                     "' is not known here: MASTER_ADDR must be reachable from every machine");
  }
  char text[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_addr, text, sizeof text);
  freeaddrinfo(found);
  return text;
}

/// Of this machine, as `address` reaches it. Nothing is sent.
std::string own_address_towards(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  inet_pton(AF_INET, address.c_str(), &to.sin_addr);
  const int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in own{};
  socklen_t size = sizeof own;
  const bool known = connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 &&
                     getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0;
  close(descriptor);
  if (!known) throw UsageError("there is no way from this machine to the coordinator at " + address);
  char text[INET_ADDRSTRLEN] = {};
  inet_ntop(AF_INET, &own.sin_addr, text, sizeof text);
  return text;
}

Credentials from_standard_input() {
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  return credentials_from_text(text, "standard input");
}

/// Where the processes of this user on this machine meet.
std::filesystem::path temporary_folder() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (!error) return folder;
  const char* named = std::getenv("TMPDIR");
  throw DataError(fmt::format("the temporary folder {} is missing: set TMPDIR to one that is there, or RUBATO_KEYS to a key file",
                              named != nullptr ? named : "/tmp"));
}

/// On one machine the processes find each other's key file by user and port.
Credentials shared_on_this_machine(const ProcessPlace& place) {
  const auto file = temporary_folder() / fmt::format("rubato-{}-{}.keys", getuid(), place.port);
  if (place.rank == 0 || place.rank < 0) {
    if (!std::filesystem::exists(file)) {
      try {
        write_credentials(file, make_credentials());
      } catch (const DataError&) {
        if (!std::filesystem::exists(file)) throw;  // or another process was quicker
      }
    }
    return read_credentials(file);
  }
  for (int i = 0; i < 300 && !std::filesystem::exists(file); ++i) std::this_thread::sleep_for(100ms);
  std::this_thread::sleep_for(100ms);  // until it is written
  return read_credentials(file);
}

Credentials credentials_of(const ProcessPlace& place) {
  if (place.keys == "-") return from_standard_input();
  if (!place.keys.empty()) return read_credentials(place.keys);
  if (is_loopback(place.address)) return shared_on_this_machine(place);
  throw UsageError(
      "processes on several machines need the job's key file: make one with `rubato keys FILE`, copy it to each "
      "machine, readable by you alone, and set RUBATO_KEYS to it");
}

pid_t start_coordinator(int incarnation) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;  // of two variables of one name the first would count
    if (!text.starts_with("RUBATO_ROLE=") && !text.starts_with("RUBATO_INCARNATION=")) variables.emplace_back(text);
  }
  variables.emplace_back("RUBATO_ROLE=coordinator");
  variables.push_back(fmt::format("RUBATO_INCARNATION={}", incarnation));
  std::vector<std::string> arguments;
  std::ifstream command_line("/proc/self/cmdline", std::ios::binary);
  for (std::string argument; std::getline(command_line, argument, '\0');) arguments.push_back(argument);
  std::vector<char*> argv, envp;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  for (std::string& variable : variables) envp.push_back(variable.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  pid_t pid = 0;
  if (posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, argv.data(), envp.data()) != 0) {
    throw UsageError("the job's coordinator cannot be started beside worker 0");
  }
  return pid;
}

}  // namespace

std::optional<ProcessPlace> place_among_processes() {
  auto place = place_of_process(process_environment());
  if (place && place->starter != "rubato" && place->world == 1) return std::nullopt;
  return place;
}

ProcessChoice choice_of(const ProcessPlace& place) {
  const std::string coordinator = numeric(place.address);
  return {.rank = place.rank,
          .world = place.world,
          .incarnation = place.incarnation,
          .coordinator = fmt::format("tcp://{}:{}", coordinator, place.port),
          .address = place.rank < 0 ? coordinator : own_address_towards(coordinator),
          .curve = !is_loopback(coordinator),
          .credentials = credentials_of(place)};
}

CoordinatorBeside::CoordinatorBeside() {
  keeper_ = std::jthread([this, pid = start_coordinator(0)]() mutable {
    for (int incarnation = 1;; ++incarnation) {
      int status = 0;
      const bool ended = waitpid(pid, &status, 0) < 0 || WIFEXITED(status);
      std::unique_lock lock(mutex_);
      if (ended || over_ || incarnation > most_coordinators) {
        ended_ = WIFEXITED(status) ? static_cast<ExitCode>(WEXITSTATUS(status)) : ExitCode::data;
        return changed_.notify_all();
      }
      lock.unlock();
      std::this_thread::sleep_for(200ms);
      pid = start_coordinator(incarnation);
    }
  });
}

void CoordinatorBeside::tell(std::function<void(ExitCode)> told) {
  teller_ = std::jthread([this, told = std::move(told)](const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (!stop.stop_requested()) {
      if (!changed_.wait_for(lock, 100ms, [this] { return ended_.has_value(); })) continue;
      const ExitCode code = *ended_;
      changed_.wait_for(lock, stop, time_to_say_so, [] { return false; });
      if (!stop.stop_requested()) told(code);
      return;
    }
  });
}

void CoordinatorBeside::await_end() {
  std::unique_lock lock(mutex_);
  over_ = true;
  changed_.wait_for(lock, longest_farewell, [this] { return ended_.has_value(); });
}

CoordinatorBeside::~CoordinatorBeside() = default;

}  // namespace rubato::app
