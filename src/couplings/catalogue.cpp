#include <cstdint>

#include <fmt/format.h>

#include "couplings/parts.h"
#include "rubato/core/error.h"

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

const std::vector<CouplingEntry>& couplings() {
  static const std::string easgd = "Zhang, Choromanska, LeCun 2015, arXiv 1412.6651";
  static const std::vector<CouplingEntry> table = {
      {.name = "none", .summary = "one replica", .paper = "", .make = make_none, .default_period = 0, .fixed_protocol = true},
      {.name = "allreduce",
       .summary = "synchronous data parallelism: every replica applies the mean gradient, summed while backward goes on",
       .paper = "",
       .make = make_allreduce,
       .default_period = 0,
       .shards_data = true,
       .fixed_protocol = true,
       .every_block = true,
       .options = {"bucket-kib"}},
      {.name = "easgd",
       .summary = "synchronous elastic averaging: all replicas meet a centre every --period steps (--moving-rate)",
       .paper = easgd,
       .make = make_easgd,
       .extra_roles = 1,
       .elastic = true,
       .fixed_protocol = true},
      {.name = "async-easgd",
       .summary = "asynchronous elastic averaging: each replica meets the centre by its own clock (--period, --moving-rate)",
       .paper = easgd + ", algorithm 1",
       .make = make_async_easgd,
       .extra_roles = 1,
       .elastic = true,
       .changes_members = true,
       .free_membership = true},
      {.name = "eamsgd",
       .summary = "async-easgd with Nesterov momentum in the replicas (--momentum)",
       .paper = easgd + ", algorithm 2",
       .make = make_async_easgd,
       .extra_roles = 1,
       .elastic = true,
       .look_ahead = true,
       .changes_members = true,
       .free_membership = true},
      {.name = "downpour",
       .summary = "each replica adds what it learned to the centre and goes on from there (--period)",
       .paper = "Dean et al. 2012",
       .make = make_downpour,
       .extra_roles = 1,
       .default_period = 1,
       .changes_members = true,
       .free_membership = true},
      {.name = "adownpour",
       .summary = "downpour; evaluated is the mean of all centres so far",
       .paper = easgd,
       .make = make_adownpour,
       .extra_roles = 1,
       .default_period = 1,
       .changes_members = true,
       .free_membership = true},
      {.name = "mvadownpour",
       .summary = "downpour; evaluated is a moving average of the centre (--averaging-rate)",
       .paper = easgd,
       .make = make_mvadownpour,
       .extra_roles = 1,
       .default_period = 1,
       .changes_members = true,
       .free_membership = true,
       .options = {"averaging-rate"}},
      {.name = "mdownpour",
       .summary = "gradients go to the centre, which has Nesterov momentum; period 1",
       .paper = easgd,
       .make = make_mdownpour,
       .extra_roles = 1,
       .default_period = 0,
       .look_ahead = true,
       .every_block = true,
       .changes_members = true,
       .clock = StepClock::centre},
      {.name = "admm",
       .summary = "round-robin linearised ADMM (--penalty); unstable where elastic averaging is not",
       .paper = easgd + ", section 3.3",
       .make = make_admm,
       .least_replicas = 2,
       .extra_roles = 1,
       .default_period = 0,
       .whole_steps = true,
       .keeps_replicas = true,
       .options = {"penalty"}},
      {.name = "local-sgd",
       .summary = "every --period steps all replicas wait and go on from their mean",
       .paper = "Stich 2019, arXiv 1805.09767",
       .make = make_local_sgd,
       .shards_data = true,
       .fixed_protocol = true},
      {.name = "lap",
       .summary = "every --period steps averagers add the difference to the mean; workers never wait",
       .paper = "Chatterjee, Kungurtsev, Alistarh 2022, arXiv 2203.06638",
       .make = make_lap,
       .least_replicas = 2,
       .default_period = 16,
       .shards_data = true,
       .free_membership = true},
  };
  return table;
}

const CouplingEntry& find_coupling(const std::string& name) {
  std::vector<std::string> names;
  for (const CouplingEntry& entry : couplings()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  throw unknown_name("coupling", name, names);
}

double largest_moving_rate(const CouplingEntry& coupling, double rate, int replicas) {
  const double p = replicas;
  return coupling.fixed_protocol ? (4 - 2 * rate) / (2 + 2 * p - rate * p) : (4 - 2 * rate) / (4 - rate);
}

void check(const CouplingOptions& o, double learning_rate) {
  const CouplingEntry& coupling = find_coupling(o.name);
  if (o.replicas < coupling.least_replicas) {
    throw UsageError(fmt::format("--coupling {} needs at least {} replicas: give --replicas {}", o.name, coupling.least_replicas,
                                 coupling.least_replicas));
  }
  if (o.period < 1) throw UsageError(fmt::format("--period {} must be at least 1 step", o.period));
  if (coupling.elastic) {
    const double bound = largest_moving_rate(coupling, learning_rate, o.replicas);
    if (!(o.moving_rate >= 0)) throw UsageError(fmt::format("--moving-rate {} must not be negative", o.moving_rate));
    if (o.moving_rate > bound) {
      throw UsageError(
          fmt::format("--moving-rate {:.4g} is beyond {:.4g} = {}, where {} with learning rate {:.4g} is unstable even on "
                      "a quadratic: give less, 0.9 / replicas is usual",
                      o.moving_rate, bound, coupling.fixed_protocol ? "(4 - 2 lr) / (2 + 2 p - lr p)" : "(4 - 2 lr) / (4 - lr)",
                      o.name, learning_rate));
    }
  }
  if (o.name == "admm" && !(o.penalty > 0)) throw UsageError(fmt::format("--penalty {} must be above 0", o.penalty));
  if (o.name == "mvadownpour" && !(o.averaging_rate > 0 && o.averaging_rate <= 1)) {
    throw UsageError(fmt::format("--averaging-rate {} must be above 0 and at most 1", o.averaging_rate));
  }
}

}  // namespace rubato
