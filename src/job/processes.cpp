#include "rubato/job/processes.h"

#include <fmt/format.h>

#include <charconv>

#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/model/digest.h"
#include "rubato/schedules/schedule.h"

namespace rubato {
namespace {

int divide_stages(TrainOptions& o, int world) {
  if (world == 1) return 1;
  if (!find_schedule(o.schedule).uses_cuts) {
    throw UsageError(
        fmt::format("{} processes with --coupling {} and --schedule {}: nothing would tie them; give a --coupling, or a "
                    "schedule with stages (ddg, fdg, 1f1b), one for each process",
                    world, o.coupling, o.schedule));
  }
  if (o.stages == 0) o.stages = world;
  if (o.stages != world) {
    throw UsageError(fmt::format("--stages {} on {} processes: without a coupling each process takes one stage; start {}",
                                 o.stages, world, o.stages));
  }
  return world;
}

}  // namespace

int divide_among(TrainOptions& o, int world) {
  if (world < 1) throw UsageError("a job needs at least one worker");
  if (find_coupling(o.coupling).topology == Topology::alone) return divide_stages(o, world);
  if (o.replicas == 0) o.replicas = world;
  if (o.replicas == world) return 1;
  const int stages = o.stages == 0 ? default_stages : o.stages;
  if (find_schedule(o.schedule).uses_cuts && o.replicas * stages == world) return stages;
  throw UsageError(
      fmt::format("--replicas {} on {} processes: start one process for each replica{}", o.replicas, world,
                  find_schedule(o.schedule).uses_cuts ? fmt::format(", or {}, one for each stage", o.replicas * stages) : ""));
}

bool has_free_membership(const TrainOptions& options, int parts) {
  return parts == 1 && find_coupling(options.coupling).membership == Membership::free;
}

Placement placement_of(const ProcessChoice& choice, const TrainOptions& options, int parts) {
  Placement place{.who = choice.is_coordinator() ? Placement::coordinator : Placement::worker, .parts = parts};
  const bool keeps_centre_only =
      has_free_membership(options, parts) && find_coupling(options.coupling).topology == Topology::centre;
  place.keeps_replicas = !keeps_centre_only;
  if (choice.is_coordinator()) return place;
  place.replica = choice.rank / parts;
  if (parts > 1) place.stage = choice.rank % parts;
  return place;
}

bool goes_on_without_the_dead(const TrainOptions& options, int parts) {
  return parts == 1 && options.replicas > 1 && find_coupling(options.coupling).loses_replicas;
}

bool keeps_replicas(const TrainOptions& options) {
  return find_coupling(options.coupling).keeps_replicas;
}

void check_job(const TrainOptions& options, int parts) {
  if (!options.metrics.empty()) address_and_port(options.metrics);
  if (options.when_worker_dies != "continue" || has_free_membership(options, parts)) return;
  if (goes_on_without_the_dead(options, parts)) return;
  throw UsageError(
      "--when-worker-dies continue needs whole replicas that a mean ties: here the others cannot go on without one; "
      "use wait or stop");
}

std::pair<std::string, int> address_and_port(const std::string& text) {
  const auto colon = text.rfind(':');
  int port = -1;
  if (colon != std::string::npos) {
    const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size()) port = -1;
  }
  if (port < 0 || port > 65535) throw UsageError("--metrics '" + text + "' is not ADDRESS:PORT, such as 127.0.0.1:9400");
  return {text.substr(0, colon), port};
}

std::string digest_of(const TrainOptions& options) {
  TrainOptions shared = options;
  shared.run_dir.clear();
  shared.resume.clear();
  shared.init_from.clear();
  shared.data_dir.clear();
  shared.metrics.clear();
  shared.quiet = shared.json = shared.trace = false;
  const std::string text = fmt::format("rubato {}\n{}", build_info().version, to_toml(shared));
  Digest digest;
  digest.add_bytes(text.data(), text.size());
  return digest.hex();
}

}  // namespace rubato
