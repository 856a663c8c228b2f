#include "rubato/launch/launcher.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "launch/address.h"
#include "launch/hosts.h"
#include "launch/run_folder.h"
#include "launch/supervisor.h"
#include "rubato/core/error.h"
#include "rubato/transport/credentials.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

void check(const LaunchOptions& options) {
  if (options.workers < 1) throw UsageError(fmt::format("--workers {} must be at least 1", options.workers));
  if (options.restarts < 0) throw UsageError(fmt::format("--restarts {} must be at least 0", options.restarts));
  if (options.port < 0 || options.port > 65535) throw UsageError(fmt::format("--port {} must be from 0 to 65535", options.port));
}

JobRecord job_of(const LaunchOptions& options) {
  std::vector<std::string> hosts(static_cast<std::size_t>(options.workers), this_machine);
  if (!options.hosts_file.empty()) hosts = fill_slots(read_hosts(options.hosts_file), options.workers);
  const bool remote = std::any_of(hosts.begin(), hosts.end(), [](const std::string& host) { return host != this_machine; });
  if (remote && options.ssh.find_first_not_of(' ') == std::string::npos) {
    throw UsageError("--ssh is empty: name the command that reaches a host, for example ssh");
  }
  check_listen_address(options.listen, remote);
  JobRecord job{.listen = options.listen,
                .port = options.port != 0 ? options.port : free_port(options.listen),
                .command = options.command,
                .arguments = options.arguments,
                .folder = fs::current_path().string(),
                .ssh = options.ssh};
  job.processes.push_back({.name = "coordinator", .rank = -1, .host = this_machine});
  for (int rank = 0; rank < options.workers; ++rank) {
    job.processes.push_back(
        {.name = fmt::format("worker-{}", rank), .rank = rank, .host = hosts[static_cast<std::size_t>(rank)]});
  }
  return job;
}

void refuse_when_watched(const JobRecord& job, const fs::path& run) {
  if (job.launcher == getpid() || start_time_of(job.launcher) != job.launcher_start_time) return;
  throw UsageError(
      fmt::format("{} is watched by another launcher, process {}: only one can do so at a time", run.string(), job.launcher));
}

void refuse_when_it_runs(const fs::path& run) {
  if (!fs::exists(run / job_file)) return;
  const JobRecord job = read_job(run);
  refuse_when_watched(job, run);
  for (const ProcessRecord& process : job.processes) {
    if (process.exited || start_time_of(process.pid) != process.start_time) continue;
    throw UsageError(fmt::format("{} of {} still runs (process {}): watch the job again with --attach {}, or end its processes",
                                 process.name, run.string(), process.pid, run.string()));
  }
}

void write_new_keys(const fs::path& run) {
  std::error_code ignored;
  fs::remove(run / key_file, ignored);
  write_credentials(run / key_file, make_credentials());
}

SupervisorOptions supervisor_options(const LaunchOptions& options, const fs::path& run) {
  return {.run = run, .restarts = options.restarts, .quiet = options.quiet};
}

/// When all have ended. Output that was lost is a failure.
int code_of(Supervisor& supervisor) {
  const int code = supervisor.run();
  if (code != 0 || !supervisor.output_was_lost()) return code;
  fmt::print(stderr, "rubato: what the processes have said could not all be printed: make room where the output goes\n");
  return static_cast<int>(ExitCode::data);
}

int attach(const LaunchOptions& options) {
  const fs::path run = fs::absolute(options.attach);
  if (!options.arguments.empty()) {
    throw UsageError("--attach watches a job as it was started: leave the command after -- out");
  }
  const JobRecord job = read_job(run);
  refuse_when_watched(job, run);
  const Signals signals;
  Supervisor supervisor(job, supervisor_options(options, run), signals);
  supervisor.attach();
  return code_of(supervisor);
}

}  // namespace

int launch(const LaunchOptions& options) {
  check(options);
  if (!options.attach.empty()) return attach(options);
  if (options.arguments.empty()) {
    throw UsageError("no command to launch: it follows --, for example rubato launch -n 2 -- train --model resnet8");
  }
  const Signals signals;  // from here on there is something to put back
  JobRecord job = job_of(options);
  const FolderBefore before(job.arguments);
  const fs::path run = agree_on_run_folder(job.arguments);
  refuse_when_it_runs(run);
  Supervisor supervisor(job, supervisor_options(options, run), signals);
  try {
    write_new_keys(run);
    supervisor.start();
  } catch (const Error&) {
    before.restore(run);
    throw;
  }
  const int code = code_of(supervisor);
  if (supervisor.was_refused()) before.restore(run);
  return code;
}

}  // namespace rubato
