#pragma once

#include <string>
#include <vector>

namespace rubato {

/// A host that is late: it waits before each forward pass.
struct Straggler {
  enum class Kind {
    fixed,   ///< always `seconds`
    random,  ///< exponentially distributed with mean `seconds`
    bursty,  ///< `seconds` for 20 passes in a row; such a burst begins with probability 1/50 per pass
  };
  int host = 0;
  Kind kind = Kind::fixed;
  double seconds = 0;
};

/// A host that is not there for the whole run.
struct Absence {
  int host = 0;
  bool dies = false;   ///< at `seconds`; else it joins then
  double seconds = 0;  ///< of virtual time
};

/// Hosts, what joins them and what goes wrong with them. Host i is named "host-i" unless a file names it.
struct SimulatedPlatform {
  std::string file = {};  ///< SimGrid's own XML; empty: the star described below
  /// A star: every host has a link of its own to a switch, full duplex. A message takes two of them.
  int hosts = 1;
  int cores_per_host = 1;
  std::vector<double> speeds = {1};  ///< host i computes speeds[i mod size] times as fast as the costs say, > 0
  /// Of a device of speed 1, where operations are counted: in float32, and under bfloat16 autocast.
  double operations_per_second = 50e9, bf16_operations_per_second = 50e9;
  double link_bytes_per_second = 12.5e9;  ///< of each link and direction
  double link_latency_seconds = 5e-6;     ///< from host to host
  double loss = 0;                        ///< probability that a message is lost and sent again after a time-out; [0, 1)
  std::vector<Straggler> stragglers = {};
  std::vector<Absence> absences = {};
  /// Entry n - 1: how many times longer a core takes while n cores of its host are busy (shared memory bandwidth); the last entry
  /// holds for more. Empty: cores do not disturb each other. Stars only.
  std::vector<double> slowdown = {};
};

/// What `--platform` and its companions say; empty or negative: as the platform has it.
struct PlatformChoice {
  std::string platform = "uniform:1";
  std::vector<std::string> host_speeds = {};  ///< "HOST:FACTOR"
  std::vector<std::string> stragglers = {};   ///< "HOST:KIND:TIME"
  std::string bandwidth = {}, latency = {};   ///< "1Gbps", "30ms"
  double loss = 0;
  int cores = 1;                           ///< of each host
  std::vector<std::string> deaths = {};    ///< "HOST:TIME"
  std::vector<std::string> arrivals = {};  ///< "HOST:TIME"
  bool operator==(const PlatformChoice&) const = default;
};

/// A preset "NAME:N" with N hosts, or a file of SimGrid's (ends in .xml). UsageError for what is neither.
///   uniform:N  processor cores, 100 Gb/s, 5 us
///   gpus:N     the same as a100:N
///   a100:N     NVIDIA A100 SXM in one machine, NVLink
///   h100:N     NVIDIA H100 SXM in one machine, NVLink
///   lan-1g:N   processor cores, 1 Gb/s, 50 us
///   wan:N      processor cores, 100 Mb/s, 30 ms
///   mixed:N    as lan-1g; speeds 1, 0.75, 0.5, 0.25 in turn
/// Where their numbers come from stands in platform.cpp and docs/simulator.md.
SimulatedPlatform parse_platform(const PlatformChoice& choice);

/// "50ms", "2s", "10us", "5m" in seconds. UsageError that names `flag` otherwise.
double parse_seconds(const std::string& flag, const std::string& text);
/// "1Gbps", "100Mbps" (bits) or "25GBps", "125MBps" (bytes) in bytes per second.
double parse_rate(const std::string& flag, const std::string& text);

}  // namespace rubato
