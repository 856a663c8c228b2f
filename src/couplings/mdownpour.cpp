#include <cstdint>

#include "couplings/entries.h"
#include "couplings/parts.h"

namespace rubato::coupling_detail {
namespace {

struct GradientPush final : PortableRequest<GradientPush> {
  BlockGradient gradient;
  std::string respond_to;
  std::size_t bytes() const override { return bytes_of(gradient.gradients); }
  std::int64_t batch() const override { return gradient.batch; }
  static auto members(auto& m) {
    return std::tie(m.respond_to, m.gradient.block, m.gradient.clock_read, m.gradient.step, m.gradient.batch,
                    m.gradient.gradients);
  }
};

struct WeightsPull final : Portable<WeightsPull> {
  TensorSetPtr centre;
  std::size_t bytes() const override { return bytes_of(centre->tensors); }
  static auto members(auto& m) { return std::tie(m.centre); }
};

/// The replica's part of MDOWNPOUR: each block's gradient goes to the centre as soon as it exists, and the block goes on from
/// what the centre responds with. The clock of a replica's block is the centre's, so that the centre knows how old each gradient
/// is.
class MomentumDownpourHooks final : public ReplicaHooks {
 public:
  MomentumDownpourHooks(int replica, const Channel<GradientPush>& pushes) : replica_(replica), pushes_(pushes) {}

  void gradient_ready(Context& me, WeightStore& store, BlockGradient gradient) override {
    const Channel<WeightsPull> pulls{{"pull/" + me.name(), 1}};
    const int block = gradient.block;
    GradientPush push;
    push.replica = replica_;
    push.gradient = std::move(gradient);
    push.respond_to = pulls.name;
    send(me, pushes_, std::move(push));
    const WeightsPull pull = receive(me, pulls);
    store.update(
        me, block, "pull",
        [&](const TensorSet&, std::vector<torch::Tensor>& next) {
          for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(pull.centre->tensors[i]);
        },
        pull.centre->clock);
  }

 private:
  int replica_;
  Channel<GradientPush> pushes_;
};

/// MDOWNPOUR (Zhang, Choromanska, LeCun 2015): Nesterov momentum at the centre, period 1. The centre holds the look-ahead point
/// x + delta v, which is where the replicas evaluate: v = delta v - eta g, c = c - eta g + delta v. That is what torch's SGD with
/// Nesterov momentum does to the centre.
class MomentumDownpour final : public Coupling {
 public:
  MomentumDownpour(const CouplingParts& parts, const CouplingOptions& options)
      : options_(options),
        pushes_{{"pushes", unbounded}, [this](const GradientPush& push) { return is_usable(push); }},
        centre_(parts.model, momentum_store(parts)),
        hooks_(parts, [&](int i) { return std::make_unique<MomentumDownpourHooks>(i, pushes_); }) {}

  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  std::vector<Role> roles(std::int64_t) override {
    if (!options_.centre_here) return {};
    return {{.name = "centre", .run = [this](Context& me) {
               serve_until_all_left(me, pushes_, options_, centre_, [&](GradientPush push) { serve(me, std::move(push)); });
             }}};
  }
  void replica_left(Context& me, int replica) override { leave_centre(me, pushes_, replica); }
  void replica_joins(Context& me, WeightStore& store, int replica, std::int64_t) override {
    join_centre(me, pushes_, store, replica, std::nullopt);
  }
  void replica_resumes(Actor& me, WeightStore& store, int, std::int64_t) override {
    adopt(me, store, "resume", newest(me, centre_), std::nullopt);
  }
  WeightStore& evaluation_weights() override { return centre_; }
  std::string requests() const override { return pushes_.name; }
  std::optional<StalenessCount> centre_staleness(int block) const override {
    return options_.centre_here ? std::optional(centre_.staleness(block)) : std::nullopt;
  }
  void save(torch::serialize::OutputArchive& archive) const override { centre_.save(archive); }
  void load(torch::serialize::InputArchive& archive) override { centre_.load(archive); }

 private:
  void serve(Context& me, GradientPush push) {
    BlockGradient& gradient = push.gradient;
    require_finite(push.replica, gradient.gradients);
    centre_.apply(me, gradient.block, std::move(gradient.gradients), gradient.clock_read, gradient.batch);
    WeightsPull pull;
    pull.centre = centre_.read(me, gradient.block).parameters;
    send(me, Channel<WeightsPull>{{push.respond_to, 1}}, std::move(pull));
  }

  CouplingOptions options_;
  /// The optimizer is the centre's, which steps once for each replica while each of them takes one step.
  static StoreOptions momentum_store(const CouplingParts& parts) {
    StoreOptions store = parts.store;
    store.updates_per_step = static_cast<std::int64_t>(parts.stores.size());
    if (!parts.centre_here) store.device = torch::kMeta;
    return store;
  }
  bool is_usable(const GradientPush& push) const {
    if (push.replica < 0 || push.replica >= options_.replicas) return false;
    return push.joins || push.leaves || fits(push.gradient.gradients, push.gradient.block, centre_);
  }

  Channel<GradientPush> pushes_;
  WeightStore centre_;
  HooksOf<MomentumDownpourHooks> hooks_;
};

}  // namespace

CouplingEntry mdownpour() {
  return {.name = "mdownpour",
          .summary = "gradients go to the centre, which has Nesterov momentum; period 1",
          .paper = easgd_paper,
          .make = [](const CouplingParts& parts,
                     const CouplingOptions& options) { return std::make_unique<MomentumDownpour>(parts, options); },
          .topology = Topology::centre,
          .default_period = 0,
          .look_ahead = true,
          .every_block = true,
          .changes_members = true,
          .clock = StepClock::centre};
}

}  // namespace rubato::coupling_detail
