#include "rubato/job/processes.h"

#include <fmt/format.h>

#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/model/digest.h"
#include "rubato/schedules/schedule.h"

namespace rubato {
namespace {

constexpr int default_stages = TrainOptions{}.stages;

int divide_stages(TrainOptions& o, int world) {
  if (world == 1) return 1;
  if (!find_schedule(o.schedule).uses_cuts) {
    throw UsageError(
        fmt::format("{} processes with --coupling none and --schedule {}: nothing would tie them; give a --coupling, or a "
                    "schedule with stages (ddg, fdg, 1f1b), one for each process",
                    world, o.schedule));
  }
  if (o.stages == default_stages) o.stages = world;
  if (o.stages != world) {
    throw UsageError(fmt::format("--stages {} on {} processes: without a coupling each process takes one stage; start {}",
                                 o.stages, world, o.stages));
  }
  return world;
}

}  // namespace

int divide_among(TrainOptions& o, int world) {
  if (world < 1) throw UsageError("a job needs at least one worker");
  if (o.coupling == "none") return divide_stages(o, world);
  if (o.replicas == 0) o.replicas = world;
  if (o.replicas == world) return 1;
  if (find_schedule(o.schedule).uses_cuts && o.replicas * o.stages == world) return o.stages;
  throw UsageError(
      fmt::format("--replicas {} on {} processes: start one process for each replica{}", o.replicas, world,
                  find_schedule(o.schedule).uses_cuts ? fmt::format(", or {}, one for each stage", o.replicas * o.stages) : ""));
}

bool has_free_membership(const TrainOptions& options, int parts) {
  return parts == 1 && find_coupling(options.coupling).free_membership;
}

Placement placement_of(const ProcessChoice& choice, const TrainOptions& options, int parts) {
  Placement place{.who = choice.is_coordinator() ? Placement::coordinator : Placement::worker, .parts = parts};
  const bool keeps_centre_only = has_free_membership(options, parts) && find_coupling(options.coupling).extra_roles > 0;
  place.keeps_replicas = !keeps_centre_only;
  if (choice.is_coordinator()) return place;
  place.replica = choice.rank / parts;
  if (parts > 1) place.stage = choice.rank % parts;
  return place;
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
