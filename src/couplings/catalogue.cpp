#include <cstdint>

#include <fmt/format.h>

#include "couplings/entries.h"
#include "couplings/parts.h"
#include "rubato/core/error.h"
#include "rubato/core/registry.h"

namespace rubato {

using namespace coupling_detail;

Packed Coupling::farewell(int replica) {
  coupling_detail::Request request;
  request.replica = replica;
  request.leaves = true;
  return request.pack_request();
}

std::vector<Role> Coupling::roles(std::int64_t) {
  return {};
}
void Coupling::replica_left(Context&, int) {}
void Coupling::replica_joins(Context&, WeightStore&, int, std::int64_t) {}
void Coupling::replica_resumes(Actor&, WeightStore&, int replica, std::int64_t) {
  throw DataError(
      fmt::format("the checkpoint does not hold replica {}, and this coupling has no centre to begin it from", replica));
}

namespace {

Registry<CouplingEntry>& registry() {
#define RUBATO_CALL(name) coupling_detail::name(),
  static Registry<CouplingEntry> all("coupling", {RUBATO_COUPLINGS(RUBATO_CALL)});
#undef RUBATO_CALL
  return all;
}

}  // namespace

bool register_coupling(CouplingEntry entry) {
  return registry().add(std::move(entry));
}

std::vector<CouplingEntry> couplings() {
  return registry().all();
}

const CouplingEntry& find_coupling(const std::string& name) {
  return registry().find(name);
}

CouplingOptions completed(CouplingOptions options, double learning_rate) {
  const RunFacts facts{.replicas = options.replicas, .learning_rate = learning_rate};
  options.values = completed_values(find_coupling(options.name), options.values, facts);
  return options;
}

void check(const CouplingOptions& o, double learning_rate) {
  const CouplingEntry& coupling = find_coupling(o.name);
  if (o.replicas < coupling.least_replicas) {
    throw UsageError(fmt::format("--coupling {} needs at least {} replicas: give --replicas {}", o.name, coupling.least_replicas,
                                 coupling.least_replicas));
  }
  if (o.period < 1) throw UsageError(fmt::format("--period {} must be at least 1 step", o.period));
  checked_values(coupling, o.values, {.replicas = o.replicas, .learning_rate = learning_rate});
}

}  // namespace rubato
