#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubato/context/runtime.h"
#include "rubato/core/option_values.h"
#include "rubato/model/weight_store.h"
#include "rubato/replica/hooks.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// What a coupling is made from besides `CouplingParts`.
struct CouplingOptions {
  std::string name = "none";
  int replicas = 1;                   ///< p, >= 1
  std::int64_t period = 10;           ///< tau, steps of a replica between two exchanges, >= 1
  OptionValues values = {};           ///< of the entry's own options
  std::vector<BlockRange> ranges;     ///< what the schedule steps together, in order; of this process
  bool centre_here = true;            ///< the centre is in this process
  int parts = 1;                      ///< processes that share the blocks of one replica
  bool one_step_at_a_time = false;    ///< the schedule never has two steps of a range under way
  std::vector<std::string> prefixes;  ///< of the names of each replica's roles
};

/// What ties the replicas of a run. Lives for a whole run; between segments nothing of it executes.
class Coupling {
 public:
  virtual ~Coupling() = default;
  /// Of replica 0 .. p - 1; valid as long as the coupling.
  virtual ReplicaHooks& hooks(int replica) = 0;
  /// Roles of the coupling's own (a centre, averagers) for one segment whose steps begin at `first_step` in every replica.
  virtual std::vector<Role> roles(std::int64_t first_step);
  /// The last role of `replica` has returned in this segment. On that role's thread; all replicas have then taken equally many
  /// steps once each has left.
  virtual void replica_left(Context& me, int replica);
  /// The channel of requests to the centre; empty: there is no centre.
  virtual std::string requests() const { return ""; }
  /// What a replica that has died would have sent there, had it left.
  static Packed farewell(int replica);
  /// `replica` begins with step `step` in the middle of a run: gives `store` the centre's weights. Before any of its roles, by a
  /// context of its own; only where `CouplingEntry::changes_members`.
  virtual void replica_joins(Context& me, WeightStore& store, int replica, std::int64_t step);
  /// The same between segments, for a replica whose state no checkpoint holds.
  virtual void replica_resumes(Actor& me, WeightStore& store, int replica, std::int64_t step);
  /// The weights that the run is about: what is evaluated and exported. Not during a segment.
  virtual WeightStore& evaluation_weights() = 0;
  /// Whether the batch-norm statistics of `evaluation_weights` do not belong to its weights, because those are averages.
  virtual bool evaluation_needs_statistics() const { return true; }
  /// How stale what replicas bring to the centre is: changes of `block` there since the replica's last exchange with it (of a
  /// gradient: since the weights that it was computed with). Nothing: there is no centre here. Not during a
  /// segment.
  virtual std::optional<StalenessCount> centre_staleness(int /*block*/) const { return std::nullopt; }
  /// What is the centre's.
  virtual void save(torch::serialize::OutputArchive&) const {}
  virtual void load(torch::serialize::InputArchive&) {}
  /// What the hooks of `replica` keep, which is in this process.
  virtual void save_hooks(torch::serialize::OutputArchive&, int) const {}
  virtual void load_hooks(torch::serialize::InputArchive&, int) {}
};

/// What a coupling is made from. References outlive the coupling.
struct CouplingParts {
  const Model& model;
  StoreOptions store;                ///< of the replicas
  std::vector<WeightStore*> stores;  ///< one per replica; all start with the model's weights; null: in another process
  bool centre_here = true;
};

/// What the clock of a replica's weights counts.
enum class StepClock {
  replica,  ///< its own steps
  centre,   ///< the steps of the centre, which takes one for each step of every replica
};

/// Who talks to whom.
enum class Topology {
  alone,   ///< nobody: there is one replica
  peers,   ///< replicas with each other
  centre,  ///< each replica with a centre, a role of the coupling's own, which wants a processor of its own in the simulator
};

/// Whom a job in processes consists of.
enum class Membership {
  fixed,  ///< all replicas from the start, or the others wait
  free,   ///< replicas come, go and die, and the centre too, while the others go on
};

/// One row of `rubato list couplings`, and all that the rest of rubato knows of a coupling.
struct CouplingEntry {
  std::string name;
  std::string summary;     ///< one line
  std::string paper = {};  ///< authors, year, number
  /// With values for all of `options`.
  std::function<std::unique_ptr<Coupling>(const CouplingParts&, const CouplingOptions&)> make;
  Topology topology = Topology::peers;
  Membership membership = Membership::fixed;
  int least_replicas = 1;
  std::int64_t default_period = 10;  ///< 0: the method has none
  bool look_ahead = false;           ///< wants an optimizer with Nesterov momentum
  bool shards_data = false;          ///< replicas share each epoch; else each samples the whole data set
  bool fixed_protocol = false;       ///< same bits whatever the timing, if the schedule's are
  bool every_block = false;          ///< needs a gradient of every block in every step
  bool changes_members = false;      ///< goes on when a replica dies, and takes new ones in
  bool loses_replicas = false;       ///< in processes whose membership is fixed: the others go on without one that has died
  StepClock clock = StepClock::replica;
  bool whole_steps = false;     ///< needs a schedule that takes one step of the whole model at a time
  bool keeps_replicas = false;  ///< a resumed run needs as many replicas as its checkpoint has
  /// Options of its own; for another coupling they are refused.
  std::vector<OptionSpec> options = {};
  CompleteOptions complete = {};
  CheckOptions check = {};
};

/// Adds a coupling to those that there are, before a run that is to know it. Returns true, so that a static object can be made of
/// the call. std::logic_error for a name that is taken; see `Registry`. From any thread.
bool register_coupling(CouplingEntry entry);
/// Those that come along, then those that were registered.
std::vector<CouplingEntry> couplings();
/// Valid to the end of the program. Throws UsageError with the nearest known name.
const CouplingEntry& find_coupling(const std::string& name);

/// `options` with values for all of the entry's own options, and for these alone. UsageError for wrong types and ranges.
CouplingOptions completed(CouplingOptions options, double learning_rate);

/// Largest moving rate at which elastic averaging is stable on a quadratic of curvature 1 with step `rate` (the paper's bounds):
/// round-robin, which stands for the asynchronous methods: (4 - 2 rate) / (4 - rate); synchronous with p replicas:
/// (4 - 2 rate) / (2 + 2 p - rate p).
double largest_moving_rate(const CouplingEntry& coupling, double rate, int replicas);

/// UsageError where numbers are out of range or cannot work.
void check(const CouplingOptions& options, double learning_rate);

}  // namespace rubato
