#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace rubato {

/// What `rubato launch` is told.
struct LaunchOptions {
  int workers = 2;                     ///< processes besides the coordinator, >= 1
  std::string hosts_file;              ///< lines "HOST [slots=N]", `#` begins a comment; empty: all on this machine
  std::string ssh = "ssh";             ///< the command that reaches a host: `SSH HOST COMMAND`
  std::string listen = "127.0.0.1";    ///< address that the coordinator binds to; with hosts: one that they reach
  int port = 0;                        ///< 0: a free one
  int restarts = 3;                    ///< of each process that a signal ends; 0: none
  bool quiet = false;                  ///< no prefixed output of the processes, only the coordinator's own
  std::string attach;                  ///< run folder whose processes still run: watch them again instead of starting new ones
  std::filesystem::path command;       ///< the rubato executable
  std::vector<std::string> arguments;  ///< "train", flags
};

/// Starts the coordinator and the workers, passes on what they print with a prefix for each, forwards SIGINT and SIGTERM to the
/// coordinator (a second signal to all, SIGKILL follows), starts again what a signal ended. Returns the coordinator's exit code.
/// The processes do not depend on the launcher: when it dies they go on, and another one may `attach`.
/// UsageError, DataError as everywhere.
int launch(const LaunchOptions& options);

}  // namespace rubato
