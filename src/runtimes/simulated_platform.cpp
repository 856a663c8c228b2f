#include "runtimes/simulated_platform.h"

#include <algorithm>
#include <limits>

#include "rubato/core/error.h"

namespace rubato {

namespace s4u = simgrid::s4u;

std::unique_ptr<s4u::Engine> make_engine() {
  // Latencies and bandwidths count as they are given (CM02), without the corrections that are fitted to TCP. What SimGrid would
  // print of a deadlock is said in a sentence of our own.
  static char program[] = "rubato", factory[] = "--cfg=contexts/factory:thread", model[] = "--cfg=network/model:CM02",
              acknowledgements[] = "--cfg=network/crosstraffic:0", quiet[] = "--log=root.app:file:/dev/null";
  char* arguments[] = {program, factory, model, acknowledgements, quiet, nullptr};
  int count = 5;
  return std::make_unique<s4u::Engine>(&count, arguments);
}

namespace {

std::vector<s4u::Host*> hosts_of_file(s4u::Engine& engine, const std::string& file) {
  try {
    engine.load_platform(file);
  } catch (const std::exception& error) {
    throw DataError("platform file " + file + ": " + error.what());
  }
  std::vector<s4u::Host*> hosts = engine.get_all_hosts();
  if (hosts.empty()) throw DataError("platform file " + file + ": it has no host");
  return hosts;
}

std::vector<s4u::Host*> star(const SimulatedPlatform& platform) {
  s4u::NetZone* zone = s4u::create_star_zone("platform");
  std::vector<s4u::Host*> hosts;
  for (int i = 0; i < platform.hosts; ++i) {
    const std::string number = std::to_string(i);
    const double speed = flops_per_second * platform.speeds[static_cast<std::size_t>(i) % platform.speeds.size()];
    s4u::Host* host = zone->create_host("host-" + number, speed)->set_core_count(platform.cores_per_host)->seal();
    const auto* link = zone->create_split_duplex_link("link-" + number, platform.link_bytes_per_second)
                           ->set_latency(platform.link_latency_seconds / 2)
                           ->seal();
    zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, {{static_cast<const s4u::SplitDuplexLink*>(link), s4u::LinkInRoute::Direction::UP}}, true);
    hosts.push_back(host);
  }
  zone->seal();
  return hosts;
}

}  // namespace

std::vector<s4u::Host*> make_hosts(s4u::Engine& engine, const SimulatedPlatform& platform) {
  return platform.file.empty() ? star(platform) : hosts_of_file(engine, platform.file);
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
