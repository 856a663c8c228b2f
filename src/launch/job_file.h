#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "launch/child.h"

namespace rubato {

inline constexpr const char* job_file = "job.json";
inline constexpr const char* key_file = "keys";

/// A process of a job as job.json shows it.
struct ProcessRecord {
  std::string name;  ///< "coordinator", "worker-3"
  int rank = 0;      ///< -1: the coordinator
  std::string host;
  pid_t pid = 0;  ///< of the process itself, or of the one here that reaches the other host
  long long start_time = 0;
  double started = 0;  ///< seconds since 1970
  int incarnation = 0;
  std::optional<Ending> exited;  ///< set when it is not started again any more
  bool operator==(const ProcessRecord&) const = default;

  bool coordinator() const { return rank < 0; }
};

/// What another launcher needs to know to watch a job; also tells the coordinator which workers are gone for good.
struct JobRecord {
  std::string listen;
  int port = 0;
  pid_t launcher = 0;
  long long launcher_start_time = 0;
  std::vector<ProcessRecord> processes;  ///< the coordinator, then the workers by rank
  std::filesystem::path command;
  std::vector<std::string> arguments;
  std::string folder;  ///< that the processes are started in
  std::string ssh;
  bool operator==(const JobRecord&) const = default;

  std::string endpoint() const;
  int workers() const { return static_cast<int>(processes.size()) - 1; }
};

std::string to_json(const JobRecord& job);
/// DataError naming `source` when it is not what `to_json` writes.
JobRecord job_from_json(const std::string& text, const std::string& source);

/// Into the run folder, whole or not at all, readable by its owner alone. DataError.
void write_job(const std::filesystem::path& run, const JobRecord& job);
JobRecord read_job(const std::filesystem::path& run);

/// What the coordinator of a run wrote at its end if it did so after `started`, in seconds since 1970, as the exit code that goes
/// with it.
std::optional<int> exit_code_of_run(const std::filesystem::path& run, double started);

}  // namespace rubato
