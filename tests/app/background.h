#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fcntl.h>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "app/command.h"

namespace rubato::test {

/// `rubato ARGUMENTS` while it runs. Killed at the end if it still does.
class Background {
 public:
  Background(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
    child_ = fork();
    if (child_ != 0) return;
    const int descriptor = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(descriptor, STDOUT_FILENO);
    dup2(descriptor, STDERR_FILENO);
    std::vector<char*> words = {const_cast<char*>("rubato")};
    for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    execv(RUBATO_COMMAND, words.data());
    _exit(127);
  }
  ~Background() { end(SIGKILL); }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  /// Whether it would end in its own way at `signal` by now.
  bool awaits(int signal) const {
    std::ifstream status("/proc/" + std::to_string(child_) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("SigCgt:")) return (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) != 0;
    }
    return false;
  }
  void end(int signal) {
    if (child_ > 0 && !status_) {
      kill(child_, signal);
      if (signal == SIGKILL) wait(std::chrono::seconds(10));
    }
  }
  /// The exit code, 128 + signal; nothing if it still runs after `limit`.
  std::optional<int> wait(std::chrono::seconds limit) {
    const auto until = std::chrono::steady_clock::now() + limit;
    while (!status_) {
      int status = 0;
      if (waitpid(child_, &status, WNOHANG) == child_) {
        status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      } else if (std::chrono::steady_clock::now() > until) {
        return std::nullopt;
      } else {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
    return status_;
  }

 private:
  pid_t child_ = -1;
  std::optional<int> status_;
};

/// Whether `condition` becomes true within `limit`.
inline bool eventually(const std::function<bool()>& condition, std::chrono::seconds limit = std::chrono::seconds(60)) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

/// The file's JSON; null while there is none.
inline nlohmann::json json_of(const std::filesystem::path& file) {
  return nlohmann::json::parse(content_of(file), nullptr, false);
}

/// The process of `rank` (-1: the coordinator) as job.json names it; 0: none.
inline pid_t process_of(const std::filesystem::path& run, int rank) {
  const nlohmann::json job = json_of(run / "job.json");
  if (!job.is_object()) return 0;
  for (const auto& process : job.value("processes", nlohmann::json::array())) {
    if (process.value("rank", -9) == rank && process["exited"].is_null()) return process.value("pid", 0);
  }
  return 0;
}

}  // namespace rubato::test
