#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace rubato {

/// What the coordinator of a job knows of one of its workers. Counts are since the job's start.
struct WorkerStatus {
  int rank = 0;
  int stage = -1;  ///< -1: a whole replica
  std::string host;
  std::int64_t pid = 0;
  int incarnation = 0;            ///< how often it has been started again
  std::string state = "missing";  ///< "missing", "alive", "silent", "dead", "finished"
  std::int64_t step = 0;
  std::int64_t steps_behind = 0;  ///< the furthest worker: how old its replica is, by the clock of that one
  std::int64_t samples = 0;
  double samples_per_second = 0;
  std::optional<double> loss;                    ///< nothing before the first one
  double staleness_mean = 0, staleness_max = 0;  ///< largest over blocks
  double waiting_seconds = 0;                    ///< of its roles, for other processes
  double waiting_share = 0;                      ///< 0 .. 1, of the time since its start
  std::int64_t bytes_sent = 0, bytes_received = 0;
  std::int64_t exchanges = 0, exchanges_skipped = 0;  ///< skipped: the centre was away
  double silent_seconds = 0;                          ///< since it was last heard
  double longest_wait_seconds = 0;                    ///< longest single wait of a role for another process
  bool operator==(const WorkerStatus&) const = default;
};

/// The process that holds the centre and the run folder.
struct CoordinatorStatus {
  std::int64_t pid = 0;
  std::string host;
  int incarnation = 0;
  std::string rebuilt_from;  ///< "", "checkpoint step 120", "weights of 7 survivors"
  bool operator==(const CoordinatorStatus&) const = default;
};

/// A job of several processes at one moment: what RUN/status.json, `rubato status` and /metrics say.
struct JobStatus {
  double time = 0;                ///< unix seconds of writing
  std::string state = "waiting";  ///< "waiting", "running", "done", "interrupted", "diverged", "failed"
  std::string run;                ///< folder
  std::string schedule, coupling;
  std::int64_t step = 0;  ///< least of the workers alive
  std::int64_t total_steps = 0;
  std::optional<double> train_loss;
  std::optional<double> test_accuracy;  ///< percent
  CoordinatorStatus coordinator;
  std::int64_t deaths = 0, joins = 0;
  std::int64_t refused = 0;                             ///< connections turned away
  std::map<std::string, std::int64_t> refused_reasons;  ///< how many for which reason
  std::string last_refused;                             ///< who and why; empty: nobody
  std::vector<WorkerStatus> workers;
  bool operator==(const JobStatus&) const = default;
};

std::vector<std::string> job_states();
std::vector<std::string> worker_states();

/// Numbers that are not finite become null, bytes that are not UTF-8 the replacement character.
std::string to_json(const JobStatus& status);
/// DataError naming `source` and the reason.
JobStatus status_from_json(const std::string& text, const std::string& source);

/// The page that Prometheus reads (text format 0.0.4).
std::string prometheus_text(const JobStatus& status);

/// For people: a line about the job, a row for each worker, what happened. Warns of a coordinator that has stopped writing.
std::string status_table(const JobStatus& status, double now_unix_seconds);

}  // namespace rubato
