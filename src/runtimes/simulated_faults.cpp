#include "runtimes/simulated_faults.h"

#include <cmath>
#include <cstdint>

#include "rubato/core/error.h"

namespace rubato {

namespace s4u = simgrid::s4u;

namespace {

constexpr int burst_length = 20;
constexpr double burst_probability = 1.0 / 50;
constexpr double least_time_out = 0.2;  // seconds: the least retransmission time-out of Linux

}  // namespace

SimulatedFaults::SimulatedFaults(const SimulatedPlatform& platform, const std::vector<s4u::Host*>& hosts, std::uint64_t seed)
    : loss_(platform.loss) {
  for (std::size_t i = 0; i < platform.stragglers.size(); ++i) {
    const Straggler& straggler = platform.stragglers[i];
    if (straggler.host >= static_cast<int>(hosts.size())) {
      throw UsageError("--straggler " + std::to_string(straggler.host) + ": the platform has " + std::to_string(hosts.size()) +
                       " hosts, 0 to " + std::to_string(hosts.size() - 1));
    }
    late_[hosts[static_cast<std::size_t>(straggler.host)]].push_back(
        {straggler, RandomStream(seed, RandomUse::fault, {static_cast<std::uint64_t>(straggler.host), i})});
  }
  if (loss_ == 0) return;
  for (std::size_t i = 0; i < hosts.size(); ++i) losses_.emplace(hosts[i], RandomStream(seed, RandomUse::fault, {i, ~0ull}));
}

double SimulatedFaults::before(const s4u::Host* host, Computation what) {
  const bool begins_a_pass = what.kind == ComputeKind::forward && what.micro_batch <= 0;  // once for a batch
  if (late_.empty() || !begins_a_pass) return 0;
  const auto found = late_.find(host);
  if (found == late_.end()) return 0;
  double seconds = 0;
  for (Late& late : found->second) seconds += late.next();
  return seconds;
}

double SimulatedFaults::Late::next() {
  switch (straggler.kind) {
    case Straggler::Kind::fixed:
      return straggler.seconds;
    case Straggler::Kind::random:
      return -straggler.seconds * std::log1p(-random.uniform());
    case Straggler::Kind::bursty:
      if (burst_left == 0 && random.uniform() < burst_probability) burst_left = burst_length;
      return burst_left > 0 ? (--burst_left, straggler.seconds) : 0;
  }
  return 0;
}

double SimulatedFaults::time_out(const s4u::Host* from, const s4u::Host* to) {
  if (loss_ == 0 || losses_.at(from).uniform() >= loss_) return 0;
  std::vector<s4u::Link*> links;
  double latency = 0;
  from->route_to(to, links, &latency);
  return std::max(least_time_out, 4 * latency);
}

}  // namespace rubato
