#include <cstdint>

#include "couplings/entries.h"
#include "couplings/parts.h"
#include "rubato/context/ordered_mutex.h"
#include "rubato/core/error.h"
#include "rubato/model/model.h"

namespace rubato::coupling_detail {
namespace {

/// What a replica has learned since it last pushed.
struct Push final : PortableRequest<Push> {
  std::string respond_to;
  BlockRange blocks;
  std::int64_t step = -1;
  BlockSets weights;                          ///< x
  BlockTensors moved;                         ///< x - x at the last push, with what the centre responded then
  std::vector<std::int64_t> centre_versions;  ///< per block: of the centre that x was based on; -1: of none exactly
  std::size_t bytes() const override { return bytes_of(moved); }
  std::int64_t batch() const override { return step; }
  static auto members(auto& m) { return std::tie(m.respond_to, m.blocks, m.step, m.weights, m.moved, m.centre_versions); }
};

/// The centre after the push.
struct Pull final : Portable<Pull> {
  std::int64_t step = -1;  ///< of the push
  BlockSets centre;
  std::size_t bytes() const override { return bytes_of(centre); }
  static auto members(auto& m) { return std::tie(m.step, m.centre); }
};

/// What of a replica's weights the centre already has, block by block.
struct Incorporated {
  TensorSetPtr base;
  std::int64_t centre_version = 0;  ///< base is the centre of this version to the bit; -1: of none
};

/// DOWNPOUR (Dean et al. 2012, as the EASGD paper states it): after every `period` steps the replica sends what it has learned
/// since, c += v, and goes on from the centre, x = c. Steps that other workers of the same replica take meanwhile are kept: x
/// moves by the difference.
class DownpourHooks final : public ReplicaHooks {
 public:
  DownpourHooks(int replica, const CouplingParts& parts, const CouplingOptions& options, const Channel<Push>& pushes)
      : replica_(replica), period_(options.period), pushes_(pushes), mutex_(options.prefixes.at(replica) + "pushed") {
    Bystander me;
    const WeightStore& store = *parts.stores.at(replica);
    for (int block = 0; block < store.block_count(); ++block) incorporated_.push_back({store.read(me, block).parameters});
    const auto held = store.options().held.value_or(std::pair{0, store.block_count()});
    held_ = {held.first, held.second};
  }

  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) override {
    if (!period_ends(step, period_)) return;
    const Channel<Pull> pulls{{"pull/" + me.name(), unbounded, true}};
    const BlockSets pushed = iterates(me, store, blocks);
    Push push;
    mutex_.alone(me, [&] { push = make_push(blocks, step, pushed, pulls.name); });
    send(me, pushes_, std::move(push));
    std::optional<Pull> pull;
    do {
      pull = receive_unless_lost(me, pulls);
    } while (pull && pull->step != step);  // what a centre that was away has found late
    if (!pull) return;                     // what was pushed is lost with the centre, or in what it is made again from
    for (int block = blocks.first; block < blocks.last; ++block) {
      const auto local = static_cast<std::size_t>(block - blocks.first);
      mutex_.alone(me, [&] { take_in(block, pushed[local], pull->centre.at(local)); });
      move_towards(me, store, block, "pull", *pushed[local], pull->centre.at(local)->tensors);
    }
  }

  /// The replica's weights are those of the centre. Before any of its roles.
  void start_from(const BlockSets& centre) {
    for (std::size_t block = 0; block < centre.size(); ++block) incorporated_[block] = {centre[block], centre[block]->version};
  }

  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  Push make_push(BlockRange blocks, std::int64_t step, const BlockSets& weights, const std::string& respond_to) {
    torch::NoGradGuard no_grad;
    Push push;
    push.replica = replica_;
    push.respond_to = respond_to;
    push.blocks = blocks;
    push.step = step;
    push.weights = weights;
    for (std::size_t local = 0; local < weights.size(); ++local) {
      Incorporated& mine = incorporated_[static_cast<std::size_t>(blocks.first) + local];
      auto& moved = push.moved.emplace_back();
      for (std::size_t i = 0; i < weights[local]->tensors.size(); ++i) {
        moved.push_back(weights[local]->tensors[i] - mine.base->tensors[i]);
      }
      push.centre_versions.push_back(mine.centre_version);
      mine = {weights[local], -1};  // on its way: another worker's push must not carry it again
    }
    return push;
  }

  /// The centre has responded with `centre` to a push of `pushed`.
  void take_in(int block, const TensorSetPtr& pushed, const TensorSetPtr& centre) {
    torch::NoGradGuard no_grad;
    Incorporated& mine = incorporated_[static_cast<std::size_t>(block)];
    if (mine.base == pushed) {
      mine = {centre, centre->version};
      return;
    }
    auto base = std::make_shared<TensorSet>();
    for (std::size_t i = 0; i < centre->tensors.size(); ++i) {
      base->tensors.push_back(mine.base->tensors[i] + (centre->tensors[i] - pushed->tensors[i]));
    }
    mine = {base, -1};
  }

  int replica_;
  std::int64_t period_;
  Channel<Push> pushes_;
  OrderedMutex mutex_;  ///< guards what follows
  std::vector<Incorporated> incorporated_;
  BlockRange held_;  ///< a stage in a process of its own saves and loads these: of the others it has no content
};

void DownpourHooks::save(torch::serialize::OutputArchive& archive) const {
  for (int block = held_.first; block < held_.last; ++block) {
    const Incorporated& mine = incorporated_[static_cast<std::size_t>(block)];
    archive.write("base" + std::to_string(block), torch::IValue(mine.base->tensors));
    archive.write("version" + std::to_string(block), torch::IValue(mine.centre_version));
  }
}

/// Blocks that the archive does not have stay as they are: it may be that of another stage.
void DownpourHooks::load(torch::serialize::InputArchive& archive) {
  for (int block = held_.first; block < held_.last; ++block) {
    torch::IValue base, version;
    if (!archive.try_read("base" + std::to_string(block), base)) continue;
    archive.read("version" + std::to_string(block), version);
    incorporated_[static_cast<std::size_t>(block)] = {std::make_shared<TensorSet>(TensorSet{base.toTensorVector()}),
                                                      version.toInt()};
  }
}

/// Adds what is pushed, as it comes. With averaging the evaluation weights are a running mean of the centre (ADOWNPOUR,
/// MVADOWNPOUR).
class Downpour final : public CentreCoupling {
 public:
  Downpour(const CouplingParts& parts, const CouplingOptions& options, const AveragingOptions& averaging)
      : CentreCoupling(parts, options, averaging),
        pushes_{{"pushes", unbounded}, [this](const Push& push) { return is_usable(push); }},
        hooks_(parts, [&](int i) { return std::make_unique<DownpourHooks>(i, parts, options, pushes_); }) {}

  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  std::vector<Role> roles(std::int64_t) override {
    if (!options_.centre_here) return {};
    return {{.name = "centre", .run = [this](Context& me) {
               serve_until_all_left(
                   me, pushes_, options_, centre_, [&](Push push) { serve(me, push); }, &exchanges_);
             }}};
  }
  void replica_left(Context& me, int replica) override { leave_centre(me, pushes_, replica); }
  void replica_joins(Context& me, WeightStore& store, int replica, std::int64_t step) override {
    hooks_[replica].start_from(join_centre(me, pushes_, store, replica, step));
  }
  void replica_resumes(Actor& me, WeightStore& store, int replica, std::int64_t step) override {
    CentreCoupling::replica_resumes(me, store, replica, step);
    hooks_[replica].start_from(newest(me, centre_));
  }
  std::string requests() const override { return pushes_.name; }
  void save_hooks(torch::serialize::OutputArchive& archive, int replica) const override { hooks_[replica].save(archive); }
  void load_hooks(torch::serialize::InputArchive& archive, int replica) override { hooks_[replica].load(archive); }

 private:
  void serve(Context& me, const Push& push) {
    require_finite(push.replica, push.moved);
    Pull pull;
    pull.step = push.step;
    for (int block = push.blocks.first; block < push.blocks.last; ++block) {
      const auto local = static_cast<std::size_t>(block - push.blocks.first);
      pull.centre.push_back(centre_.update(me, block, "centre", [&](const TensorSet& now, std::vector<torch::Tensor>& next) {
        // Nobody else was here since: c + (x - c) is x, without the rounding.
        const bool alone = now.version == push.centre_versions[local];
        for (std::size_t i = 0; i < next.size(); ++i) {
          if (alone) {
            next[i].copy_(push.weights[local]->tensors[i]);
          } else {
            torch::add_out(next[i], now.tensors[i], push.moved[local][i]);
          }
        }
      }));
      const std::int64_t after = pull.centre.back()->version;
      exchanges_.exchanged(push.replica, block, after - 1, after);
    }
    send(me, Channel<Pull>{{push.respond_to, unbounded}}, std::move(pull));
  }

  bool is_usable(const Push& push) const {
    if (push.replica < 0 || push.replica >= options_.replicas) return false;
    if (push.joins || push.leaves) return true;
    return fits(push.weights, push.blocks, centre_) && fits(push.moved, push.blocks, centre_) && complete(push.moved) &&
           push.centre_versions.size() == push.moved.size();
  }

  Channel<Push> pushes_;
  HooksOf<DownpourHooks> hooks_;
};

/// `averaging`: of the centre, as in `AveragingOptions`.
CouplingEntry entry(const std::string& name, const std::string& summary, const std::string& paper, Averaging averaging) {
  return {.name = name,
          .summary = summary,
          .paper = paper,
          .make =
              [averaging](const CouplingParts& parts, const CouplingOptions& options) {
                const bool moves = averaging == Averaging::moving;
                return std::make_unique<Downpour>(
                    parts, options, AveragingOptions{averaging, moves ? options.values.get<double>("averaging-rate") : 0});
              },
          .topology = Topology::centre,
          .membership = Membership::free,
          .default_period = 1,
          .changes_members = true,
          .loses_replicas = true};
}

}  // namespace

CouplingEntry downpour() {
  return entry("downpour", "each replica adds what it learned to the centre and goes on from there (--period)",
               "Dean et al. 2012", Averaging::none);
}

CouplingEntry adownpour() {
  return entry("adownpour", "downpour; evaluated is the mean of all centres so far", easgd_paper, Averaging::mean);
}

CouplingEntry mvadownpour() {
  CouplingEntry moving = entry("mvadownpour", "downpour; evaluated is a moving average of the centre (--averaging-rate)",
                               easgd_paper, Averaging::moving);
  moving.options = {averaging_rate_option()};
  moving.check = [](const OptionValues& values, const RunFacts&) {
    if (!(values.get<double>("averaging-rate") > 0)) throw UsageError("--averaging-rate 0 must be above 0 and at most 1");
  };
  return moving;
}

}  // namespace rubato::coupling_detail
