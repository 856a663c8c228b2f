#include "rubato/bootstrap/environment.h"

#include <fmt/format.h>

#include <cstdlib>
#include <limits>

#include "rubato/core/error.h"
#include "rubato/core/numbers.h"

namespace rubato {
namespace {

constexpr int most = std::numeric_limits<int>::max();
constexpr int last_port = 65535;

std::optional<std::string> text(const Environment& environment, const std::string& name) {
  std::optional<std::string> value = environment(name);
  if (value && value->empty()) return std::nullopt;
  return value;
}

std::optional<int> number(const Environment& environment, const std::string& name, int low, int high = most) {
  const std::optional<std::string> given = text(environment, name);
  if (!given) return std::nullopt;
  const std::optional<long long> value = whole_number(*given);
  if (value && *value >= low && *value <= high) return static_cast<int>(*value);
  throw UsageError(fmt::format("the environment variable {} is '{}', but must be a whole number {}", name, *given,
                               high == most ? fmt::format("of at least {}", low) : fmt::format("from {} to {}", low, high)));
}

/// A number without which what `starter` says is not complete.
int needed(const Environment& environment, const std::string& name, int low, int high, const std::string& starter) {
  if (const std::optional<int> value = number(environment, name, low, high)) return *value;
  throw UsageError(
      fmt::format("{} started this process, but the environment variable {} is missing: set it in each process of "
                  "the job, or unset the others to train in one process",
                  starter, name));
}

bool is_coordinator(const Environment& environment) {
  const std::optional<std::string> role = text(environment, "RUBATO_ROLE");
  if (!role || *role == "worker") return false;
  if (*role == "coordinator") return true;
  throw UsageError(fmt::format("the environment variable RUBATO_ROLE is '{}', but must be coordinator or worker", *role));
}

/// Rank, world and local rank from variables of these names.
ProcessPlace counted(const Environment& environment, const std::string& rank, const std::string& world,
                     const std::string& local_rank, const std::string& starter) {
  ProcessPlace place;
  number(environment, rank, is_coordinator(environment) ? -1 : 0);  // a word for a number is wrong before others are missing
  place.world = needed(environment, world, 1, most, starter);
  place.rank = is_coordinator(environment) ? -1 : needed(environment, rank, 0, place.world - 1, starter);
  place.local_rank = number(environment, local_rank, 0).value_or(0);
  place.starter = starter;
  return place;
}

void name_endpoint(const Environment& environment, ProcessPlace& place) {
  place.address = text(environment, "MASTER_ADDR").value_or(place.address);
  place.port = number(environment, "MASTER_PORT", 1, last_port).value_or(place.port);
}

ProcessPlace from_torchrun(const Environment& environment) {
  // Else a coordinator has to be started beside worker 0, whatever its role is called.
  const bool ours = is_coordinator(environment) || text(environment, "RUBATO_STARTED_BY") == "launch";
  ProcessPlace place = counted(environment, "RANK", "WORLD_SIZE", "LOCAL_RANK", ours ? "rubato" : "torchrun");
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) {
    if ((place.world > 1 || ours) && !text(environment, name)) {
      throw UsageError(
          fmt::format("the job has {} workers (WORLD_SIZE), but the environment variable {} is missing: MASTER_ADDR "
                      "and MASTER_PORT say where all of them find its coordinator",
                      place.world, name));
    }
  }
  name_endpoint(environment, place);
  // torchrun itself listens at MASTER_PORT then; the port beside it is ours.
  if (text(environment, "TORCHELASTIC_USE_AGENT_STORE") == "True") place.port += place.port < last_port ? 1 : -1;
  return place;
}

/// "n003" of "n[003-007,9],m1"; nothing when that is no list of hosts.
std::optional<std::string> first_host(const std::string& list) {
  std::string host;
  for (std::size_t at = 0; at < list.size() && list[at] != ','; ++at) {
    if (list[at] != '[') {
      host += list[at];
      continue;
    }
    const std::size_t end = list.find(']', at), number_end = list.find_first_of(",-]", at + 1);
    if (end == std::string::npos || number_end == at + 1) return std::nullopt;
    host += list.substr(at + 1, number_end - at - 1);
    at = end;
  }
  if (host.empty()) return std::nullopt;
  return host;
}

std::string first_slurm_host(const Environment& environment) {
  if (const auto nodes = text(environment, "SLURM_JOB_NODELIST")) {
    if (const auto host = first_host(*nodes)) return *host;
    throw UsageError("the environment variable SLURM_JOB_NODELIST is '" + *nodes +
                     "', which is no list of hosts: set MASTER_ADDR to the first host of the job");
  }
  if (const auto address = text(environment, "SLURM_LAUNCH_NODE_IPADDR")) return *address;
  throw UsageError(
      "Slurm does not say which hosts the job has (SLURM_JOB_NODELIST is missing): set MASTER_ADDR to the first of them");
}

ProcessPlace from_slurm(const Environment& environment) {
  ProcessPlace place = counted(environment, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "slurm");
  if (place.world > 1 && !text(environment, "MASTER_ADDR")) place.address = first_slurm_host(environment);
  // Jobs that share a host get different ports, without a word between their processes.
  if (const auto job = number(environment, "SLURM_JOB_ID", 0)) place.port = 15000 + *job % 20000;
  name_endpoint(environment, place);
  return place;
}

ProcessPlace from_openmpi(const Environment& environment) {
  const std::string prefix = "OMPI_COMM_WORLD_";
  ProcessPlace place = counted(environment, prefix + "RANK", prefix + "SIZE", prefix + "LOCAL_RANK", "openmpi");
  const int here = number(environment, prefix + "LOCAL_SIZE", 1).value_or(place.world);
  if (here < place.world && !text(environment, "MASTER_ADDR")) {
    throw UsageError(
        "mpirun started this job on several hosts, but does not say which is the first: give it -x MASTER_ADDR=HOST");
  }
  name_endpoint(environment, place);
  return place;
}

std::optional<ProcessPlace> from_any(const Environment& environment) {
  const auto given = [&](const char* name) { return text(environment, name).has_value(); };
  if (given("RANK") || given("WORLD_SIZE")) return from_torchrun(environment);
  // A batch script is not a task of srun, although it has a SLURM_PROCID.
  if (given("SLURM_PROCID") && given("SLURM_NTASKS")) return from_slurm(environment);
  if (given("OMPI_COMM_WORLD_RANK") || given("OMPI_COMM_WORLD_SIZE")) return from_openmpi(environment);
  if (given("RUBATO_ROLE")) return from_torchrun(environment);
  return std::nullopt;
}

}  // namespace

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

std::optional<ProcessPlace> place_of_process(const Environment& environment) {
  std::optional<ProcessPlace> place = from_any(environment);
  if (!place) return std::nullopt;
  place->incarnation = number(environment, "RUBATO_INCARNATION", 0).value_or(0);
  place->keys = text(environment, "RUBATO_KEYS").value_or("");
  return place;
}

}  // namespace rubato
