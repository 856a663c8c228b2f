#include "launch/job_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "rubato/core/error.h"
#include "rubato/core/numbers.h"
#include "rubato/core/read_file.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const ProcessRecord& process) {
  return {{"name", process.name},
          {"rank", process.rank},
          {"host", process.host},
          {"pid", process.pid},
          {"start_time", process.start_time},
          {"started", process.started},
          {"incarnation", process.incarnation},
          {"exited", process.exited ? Json(to_text(*process.exited)) : Json(nullptr)}};
}

ProcessRecord process_from(const Json& json) {
  ProcessRecord process{.name = json.at("name"),
                        .rank = json.at("rank"),
                        .host = json.at("host"),
                        .pid = json.at("pid"),
                        .start_time = json.at("start_time"),
                        .started = json.at("started"),
                        .incarnation = json.at("incarnation")};
  if (!json.at("exited").is_null()) process.exited = ending_from_text(json.at("exited"));
  return process;
}

/// The coordinator first, then every rank in its order: others index by that.
bool in_order(const std::vector<ProcessRecord>& processes) {
  for (std::size_t i = 0; i < processes.size(); ++i) {
    if (processes[i].rank != static_cast<int>(i) - 1) return false;
  }
  return processes.size() >= 2;
}

int port_of(const std::string& endpoint) {
  const std::optional<long long> port = whole_number(endpoint.substr(endpoint.rfind(':') + 1));
  if (port && *port >= 1 && *port <= 65535) return static_cast<int>(*port);
  throw std::invalid_argument("its endpoint '" + endpoint + "' does not end with a port");
}

JobRecord job_from(const Json& json) {
  JobRecord job{.listen = json.at("listen"),
                .port = port_of(json.at("endpoint")),
                .launcher = json.at("launcher").at("pid"),
                .launcher_start_time = json.at("launcher").at("start_time"),
                .command = json.at("command").get<std::string>(),
                .arguments = json.at("arguments"),
                .folder = json.at("folder"),
                .ssh = json.at("ssh")};
  for (const Json& process : json.at("processes")) job.processes.push_back(process_from(process));
  if (!in_order(job.processes)) throw std::invalid_argument("its processes are not the coordinator and workers 0, 1, ...");
  return job;
}

}  // namespace

namespace {

bool write_all(const Descriptor& output, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(output.number(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));  // the rest of it fails with the reason
  }
  return true;
}

}  // namespace

std::string JobRecord::endpoint() const {
  return fmt::format("tcp://{}:{}", listen, port);
}

std::string to_json(const JobRecord& job) {
  Json processes = Json::array();
  for (const ProcessRecord& process : job.processes) processes.push_back(to_json(process));
  const Json json = {{"endpoint", job.endpoint()},
                     {"listen", job.listen},
                     {"launcher", {{"pid", job.launcher}, {"start_time", job.launcher_start_time}}},
                     {"processes", processes},
                     {"command", job.command.string()},
                     {"arguments", job.arguments},
                     {"folder", job.folder},
                     {"ssh", job.ssh}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

JobRecord job_from_json(const std::string& text, const std::string& source) {
  try {
    return job_from(Json::parse(text));
  } catch (const Json::parse_error&) {
    throw DataError(source + " is not a job that `rubato launch` wrote: it is no JSON");
  } catch (const Json::exception&) {
    throw DataError(source + " is not a job that `rubato launch` wrote: a value that it needs is missing or of another kind");
  } catch (const std::exception& error) {
    throw DataError(fmt::format("{} is not a job that `rubato launch` wrote: {}", source, error.what()));
  }
}

void write_job(const fs::path& run, const JobRecord& job) {
  const fs::path file = run / job_file, draft = file.string() + ".tmp";
  const std::string text = to_json(job);
  // Not synced: after a crash of the machine the processes that it names are gone too.
  const Descriptor output(open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const bool written = output.open() && fchmod(output.number(), 0600) == 0 && write_all(output, text);
  if (!written || std::rename(draft.c_str(), file.c_str()) != 0) {
    const int reason = errno;
    unlink(draft.c_str());
    throw DataError(fmt::format("cannot write {}: {}", file.string(), std::strerror(reason)));
  }
}

JobRecord read_job(const fs::path& run) {
  return job_from_json(whole_file(run / job_file), (run / job_file).string());
}

std::optional<int> exit_code_of_run(const fs::path& run, double started) {
  static const std::map<std::string, ExitCode> codes = {
      {"done", ExitCode::ok}, {"interrupted", ExitCode::interrupted}, {"diverged", ExitCode::diverged}};
  constexpr double coarse = 0.02;  // file systems take their times from a clock that ticks more slowly
  struct stat status {};
  if (stat((run / "summary.json").c_str(), &status) != 0) return std::nullopt;
  const double written = static_cast<double>(status.st_mtim.tv_sec) + 1e-9 * static_cast<double>(status.st_mtim.tv_nsec);
  if (written + coarse < started) return std::nullopt;
  const Json summary = Json::parse(std::ifstream(run / "summary.json"), nullptr, false);
  if (!summary.is_object() || !summary.contains("status") || !summary["status"].is_string()) return std::nullopt;
  const auto code = codes.find(summary["status"].get<std::string>());
  if (code == codes.end()) return std::nullopt;
  return static_cast<int>(code->second);
}

}  // namespace rubato
