#include "runtimes/simulated_platform.h"

#include <algorithm>
#include <limits>

#include "rubato/core/error.h"
#include "rubato/core/read_file.h"

namespace rubato {

namespace s4u = simgrid::s4u;

std::unique_ptr<s4u::Engine> make_engine(const RuntimeOptions& options) {
  // Latencies and bandwidths count as they are given (CM02), without the corrections that are fitted to TCP. What SimGrid would
  // print of a deadlock is said in a sentence of our own. Small stacks have no guard page: each is a mapping of its own, of which
  // a process may have 65,530.
  std::vector<std::string> arguments = {"rubato", "--cfg=network/model:CM02", "--cfg=network/crosstraffic:0",
                                        "--log=root.app:file:/dev/null",
                                        options.one_thread ? "--cfg=contexts/factory:raw" : "--cfg=contexts/factory:thread"};
  if (options.one_thread) {
    arguments.push_back("--cfg=contexts/stack-size:" + std::to_string(options.stack_kib));
    if (options.stack_kib < 512) arguments.push_back("--cfg=contexts/guard-size:0");
  }
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  int count = static_cast<int>(arguments.size());
  return std::make_unique<s4u::Engine>(&count, pointers.data());
}

namespace {

std::vector<s4u::Host*> hosts_of_file(s4u::Engine& engine, const std::string& file) {
  whole_file(file);  // SimGrid does not say why it cannot open one
  try {
    engine.load_platform(file);
  } catch (const std::exception& error) {
    throw DataError("platform file " + file + ": " + error.what());
  }
  std::vector<s4u::Host*> hosts = engine.get_all_hosts();
  if (hosts.empty()) throw DataError("platform file " + file + ": it has no host");
  return hosts;
}

/// So many share a link fairly, the others queue: what an event costs does not grow with the number of messages under way.
constexpr int messages_at_a_time = 16;

/// From SimGrid 4 on every platform has a root zone already, and ours lies in it; before, the first zone became the root.
template <class Zone>
Zone* make_star_zone(Zone* root) {
  if constexpr (requires { root->add_netzone_star("platform"); }) {
    if (root != nullptr) return root->add_netzone_star("platform");
  }
  return s4u::create_star_zone("platform");
}

std::vector<s4u::Host*> star(const s4u::Engine& engine, const SimulatedPlatform& platform) {
  s4u::NetZone* zone = make_star_zone(engine.get_netzone_root());
  std::vector<s4u::Host*> hosts;
  for (int i = 0; i < platform.hosts; ++i) {
    const std::string number = std::to_string(i);
    const double speed = flops_per_second * platform.speeds[static_cast<std::size_t>(i) % platform.speeds.size()];
    s4u::Host* host = zone->create_host("host-" + number, speed)->set_core_count(platform.cores_per_host);
    if (!platform.slowdown.empty()) {
      host->set_sharing_policy(s4u::Host::SharingPolicy::NONLINEAR, [slowdown = platform.slowdown](double capacity, int busy) {
        const auto last = static_cast<int>(slowdown.size());
        return capacity / slowdown[static_cast<std::size_t>(std::clamp(busy, 1, last) - 1)];
      });
    }
    host->seal();
    const auto* link =
        static_cast<const s4u::SplitDuplexLink*>(zone->create_split_duplex_link("link-" + number, platform.link_bytes_per_second)
                                                     ->set_latency(platform.link_latency_seconds / 2)
                                                     ->seal());
    for (s4u::Link* direction : {link->get_link_up(), link->get_link_down()})
      direction->set_concurrency_limit(messages_at_a_time);
    zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, {{link, s4u::LinkInRoute::Direction::UP}}, true);
    hosts.push_back(host);
  }
  zone->seal();
  return hosts;
}

}  // namespace

std::vector<s4u::Host*> make_hosts(s4u::Engine& engine, const SimulatedPlatform& platform) {
  return platform.file.empty() ? star(engine, platform) : hosts_of_file(engine, platform.file);
}

double ring_seconds(const std::vector<s4u::Host*>& hosts, double bytes) {
  const auto members = static_cast<double>(hosts.size());
  double slowest = 0;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const s4u::Host* to = hosts[(i + 1) % hosts.size()];
    if (hosts[i] == to) continue;
    std::vector<s4u::Link*> links;
    double latency = 0, bandwidth = std::numeric_limits<double>::infinity();
    hosts[i]->route_to(to, links, &latency);
    for (const s4u::Link* link : links) bandwidth = std::min(bandwidth, link->get_bandwidth());
    slowest = std::max(slowest, latency + bytes / members / bandwidth);
  }
  return 2 * (members - 1) * slowest;
}

}  // namespace rubato
