#pragma once

#include <functional>
#include <optional>
#include <string>

namespace rubato {

/// Which process of a job this is.
struct ProcessPlace {
  int rank = 0;   ///< 0 .. world - 1; -1: the coordinator, which holds the centre and the run folder
  int world = 1;  ///< workers of the job
  int local_rank = 0;
  std::string address = "127.0.0.1";  ///< of the coordinator
  int port = 29400;
  int incarnation = 0;  ///< how often this process has been started again
  std::string keys;     ///< file with the job's credentials; "-": they come on standard input; empty: none given
  std::string starter;  ///< "rubato", "torchrun", "slurm", "openmpi"
  bool operator==(const ProcessPlace&) const = default;
};

/// Value of an environment variable; nothing when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment process_environment();

/// What the starter of this process says about its place, from torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
/// MASTER_PORT), then Slurm's (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, first host of SLURM_JOB_NODELIST or
/// SLURM_LAUNCH_NODE_IPADDR), then Open MPI's (OMPI_COMM_WORLD_RANK, ..._SIZE, ..._LOCAL_RANK; address from MASTER_ADDR, required
/// when there are several nodes). RUBATO_ROLE=coordinator makes it the coordinator; RUBATO_INCARNATION and RUBATO_KEYS are read
/// in every case. Nothing where none is set. UsageError (one sentence) for values that are no numbers, out of range or
/// incomplete.
std::optional<ProcessPlace> place_of_process(const Environment& environment);

}  // namespace rubato
