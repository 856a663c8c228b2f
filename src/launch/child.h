#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "rubato/io/descriptor.h"

namespace rubato {

/// What to start.
struct Command {
  std::vector<std::string> arguments;    ///< the first is the program, looked for in PATH when it has no slash
  std::vector<std::string> environment;  ///< "NAME=VALUE"
  std::string folder;                    ///< to start in
  std::string input;                     ///< what it reads from its standard input
};

/// How a process ended. Neither: nobody can know, it was not our child.
struct Ending {
  std::optional<int> code, signal;
  bool operator==(const Ending&) const = default;
};
/// "exit 3", "signal 9", "unknown"
std::string to_text(const Ending& ending);
Ending ending_from_text(const std::string& text);

/// A running process in a process group of its own: one that was started here or one of an earlier launcher.
class Child {
 public:
  /// DataError when it cannot be started.
  static Child start(const Command& command);
  /// The process `pid` if it is the one that started at `start_time`, nothing when that is gone.
  static std::optional<Child> adopt(pid_t pid, long long start_time);

  pid_t pid() const { return pid_; }
  /// In ticks since the machine started; with the pid it names a process for good.
  long long start_time() const { return start_time_; }
  /// Readable when it has ended.
  int ended() const { return handle_.number(); }
  /// When `ended` is readable: how, once.
  Ending ending();
  /// To its process group.
  void signal(int number) const;
  /// SIGTERM to the process, with the exit code of its job beside it.
  void tell_job_code(int code) const;

  Descriptor output, errors;  ///< read ends of its streams; taken by whoever passes them on

 private:
  pid_t pid_ = 0;
  long long start_time_ = 0;
  Descriptor handle_;
  bool adopted_ = false;
};

/// Start time of a process that lives; nothing when there is none, or when it only waits for somebody to take note of its end.
std::optional<long long> start_time_of(pid_t pid);

}  // namespace rubato
