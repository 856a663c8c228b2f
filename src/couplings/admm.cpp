#include <cstdint>

#include "couplings/entries.h"
#include "couplings/parts.h"
#include "rubato/core/error.h"
#include "rubato/model/model.h"

namespace rubato::coupling_detail {
namespace {

/// A replica has a gradient and asks for its turn.
struct TurnRequest final : PortableRequest<TurnRequest> {
  std::size_t bytes() const override { return 0; }
  static auto members(auto&) { return std::tie(); }
};

struct Turn final : Portable<Turn> {
  BlockSets centre;
  std::size_t bytes() const override { return bytes_of(centre); }
  static auto members(auto& m) { return std::tie(m.centre); }
};

/// x - lambda after the turn.
struct Contribution final : Portable<Contribution> {
  BlockTensors difference;
  std::size_t bytes() const override { return bytes_of(difference); }
  static auto members(auto& m) { return std::tie(m.difference); }
};

Channel<Turn> turns(int replica) {
  return {{"turn/" + std::to_string(replica), 1}};
}

/// A replica's part of linearised round-robin ADMM, at its turn (Zhang, Choromanska, LeCun 2015, eq. 8 to 10, lambda scaled by
/// 1/rho):
///   lambda = lambda - (x - c),   x = (x - eta g(x) + eta rho (lambda + c)) / (1 + eta rho).
/// g is clipped and has the weight decay's part, as every optimizer's. Nobody but its turn changes x, so the gradient may be
/// computed while others have theirs.
class AdmmHooks final : public ReplicaHooks {
 public:
  AdmmHooks(int replica, const CouplingParts& parts, const CouplingOptions& options, const Channel<TurnRequest>& requests,
            const Channel<Contribution>& contributions)
      : replica_(replica), penalty_(options.values.get<double>("penalty")), requests_(requests), contributions_(contributions) {
    Bystander me;
    for (int block = 0; block < static_cast<int>(parts.model.blocks.size()); ++block) {
      auto& zeros = lambda_.emplace_back();
      for (const auto& tensor : parts.stores.at(replica)->read(me, block).parameters->tensors) {
        zeros.push_back(torch::zeros_like(tensor));
      }
    }
    gradients_.resize(lambda_.size());
  }

  void gradient_ready(Context&, WeightStore&, BlockGradient gradient) override {
    gradients_.at(static_cast<std::size_t>(gradient.block)) = std::move(gradient.gradients);
  }

  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t) override {
    TurnRequest request;
    request.replica = replica_;
    send(me, requests_, std::move(request));
    const Turn turn = receive(me, turns(replica_));
    Contribution contribution;
    for (int block = blocks.first; block < blocks.last; ++block) {
      contribution.difference.push_back(move(me, store, block, turn.centre.at(static_cast<std::size_t>(block))->tensors));
    }
    send(me, contributions_, std::move(contribution));
  }

  void save(torch::serialize::OutputArchive& archive) const {
    for (std::size_t block = 0; block < lambda_.size(); ++block) {
      archive.write("lambda" + std::to_string(block), torch::IValue(lambda_[block]));
    }
  }
  void load(torch::serialize::InputArchive& archive) {
    for (std::size_t block = 0; block < lambda_.size(); ++block) {
      torch::IValue value;
      archive.read("lambda" + std::to_string(block), value);
      lambda_[block] = value.toTensorVector();
    }
  }

 private:
  std::vector<torch::Tensor> move(Context& me, WeightStore& store, int block, const std::vector<torch::Tensor>& centre) {
    torch::NoGradGuard no_grad;
    auto& lambda = lambda_[static_cast<std::size_t>(block)];
    auto& gradients = gradients_[static_cast<std::size_t>(block)];
    const std::int64_t clock = store.read(me, block).parameters->clock;
    const double rate = store.rate(clock);
    clip(store.options().optimizer, gradients);
    const double decay = store.options().optimizer.weight_decay;
    const auto moved = store.update(
        me, block, "turn",
        [&](const TensorSet& now, std::vector<torch::Tensor>& next) {
          for (std::size_t i = 0; i < next.size(); ++i) {
            lambda[i] = lambda[i] - (now.tensors[i] - centre[i]);
            next[i].copy_(lambda[i] + centre[i]).mul_(rate * penalty_).add_(now.tensors[i]);
            if (gradients[i].defined()) next[i].sub_(gradients[i], rate).sub_(now.tensors[i], rate * decay);
            next[i].div_(1 + rate * penalty_);
          }
        },
        clock + 1);
    std::vector<torch::Tensor> difference;
    for (std::size_t i = 0; i < lambda.size(); ++i) difference.push_back(moved->tensors[i] - lambda[i]);
    gradients.clear();
    return difference;
  }

  int replica_;
  double penalty_;
  Channel<TurnRequest> requests_;
  Channel<Contribution> contributions_;
  BlockTensors lambda_, gradients_;  // of one role at a time: the method needs whole steps
};

/// The centre gives each replica its turn, strictly one after the other, and is the mean of x_j - lambda_j after every turn.
class Admm final : public Coupling {
 public:
  Admm(const CouplingParts& parts, const CouplingOptions& options)
      : options_(options),
        requests_{{"requests", unbounded},
                  [this](const TurnRequest& request) { return request.replica >= 0 && request.replica < options_.replicas; }},
        contributions_{{"contributions", 1},
                       [this](const Contribution& one) {
                         return fits(one.difference, {0, centre_.block_count()}, centre_) && complete(one.difference);
                       }},
        centre_(parts.model, centre_store(parts, {})),
        hooks_(parts, [&](int i) { return std::make_unique<AdmmHooks>(i, parts, options, requests_, contributions_); }),
        waiting_(static_cast<std::size_t>(options.replicas)) {
    Bystander me;
    for (int i = 0; i < options.replicas; ++i) {
      auto& mine = differences_.emplace_back();
      for (int block = 0; block < centre_.block_count(); ++block) mine.push_back(centre_.read(me, block).parameters->tensors);
    }
  }

  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  std::vector<Role> roles(std::int64_t) override {
    if (!options_.centre_here) return {};
    return {{.name = "centre", .run = [this](Context& me) {
               serve_until_all_left(me, requests_, options_, centre_, [&](const TurnRequest& request) {
                 waiting_[static_cast<std::size_t>(request.replica)] = true;
                 while (waiting_[static_cast<std::size_t>(next_)]) give_turn(me);
               });
             }}};
  }
  void replica_left(Context& me, int replica) override { leave_centre(me, requests_, replica); }
  WeightStore& evaluation_weights() override { return centre_; }
  std::string requests() const override { return requests_.name; }
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;
  void save_hooks(torch::serialize::OutputArchive& archive, int replica) const override { hooks_[replica].save(archive); }
  void load_hooks(torch::serialize::InputArchive& archive, int replica) override { hooks_[replica].load(archive); }

 private:
  static std::string difference_key(int replica, int block) {
    return "difference" + std::to_string(replica) + "-" + std::to_string(block);
  }
  void give_turn(Context& me) {
    waiting_[static_cast<std::size_t>(next_)] = false;
    Turn turn;
    for (int block = 0; block < centre_.block_count(); ++block) turn.centre.push_back(centre_.read(me, block).parameters);
    send(me, turns(next_), std::move(turn));
    Contribution contribution = receive(me, contributions_);
    require_finite(next_, contribution.difference);
    differences_[static_cast<std::size_t>(next_)] = std::move(contribution.difference);
    for (int block = 0; block < centre_.block_count(); ++block) average(me, block);
    next_ = (next_ + 1) % options_.replicas;
  }

  void average(Context& me, int block) {
    centre_.update(me, block, "centre", [&](const TensorSet&, std::vector<torch::Tensor>& next) {
      for (std::size_t i = 0; i < next.size(); ++i) {
        next[i].zero_();
        for (const BlockTensors& mine : differences_) next[i].add_(mine[static_cast<std::size_t>(block)][i]);
        next[i].div_(static_cast<double>(options_.replicas));
      }
    });
  }

  CouplingOptions options_;
  Channel<TurnRequest> requests_;
  Channel<Contribution> contributions_;
  WeightStore centre_;
  HooksOf<AdmmHooks> hooks_;
  std::vector<bool> waiting_;
  std::vector<BlockTensors> differences_;  // x - lambda of each replica
  int next_ = 0;
};

void Admm::save(torch::serialize::OutputArchive& archive) const {
  torch::serialize::OutputArchive centre(archive.compilation_unit());
  centre_.save(centre);
  archive.write("centre", centre);
  archive.write("next", torch::IValue(static_cast<std::int64_t>(next_)));
  for (int i = 0; i < options_.replicas; ++i) {
    for (int block = 0; block < centre_.block_count(); ++block) {
      archive.write(difference_key(i, block),
                    torch::IValue(differences_[static_cast<std::size_t>(i)][static_cast<std::size_t>(block)]));
    }
  }
}

void Admm::load(torch::serialize::InputArchive& archive) {
  torch::IValue last, beyond;
  if (!archive.try_read(difference_key(options_.replicas - 1, 0), last) ||
      archive.try_read(difference_key(options_.replicas, 0), beyond)) {
    throw DataError("admm goes on with the number of replicas that the checkpoint has, no other");
  }
  torch::serialize::InputArchive centre;
  archive.read("centre", centre);
  centre_.load(centre);
  torch::IValue next;
  archive.read("next", next);
  next_ = static_cast<int>(next.toInt());
  for (int i = 0; i < options_.replicas; ++i) {
    for (int block = 0; block < centre_.block_count(); ++block) {
      torch::IValue difference;
      archive.read(difference_key(i, block), difference);
      differences_[static_cast<std::size_t>(i)][static_cast<std::size_t>(block)] = difference.toTensorVector();
    }
  }
}

}  // namespace

CouplingEntry admm() {
  return {
      .name = "admm",
      .summary = "round-robin linearised ADMM (--penalty); unstable where elastic averaging is not",
      .paper = std::string(easgd_paper) + ", section 3.3",
      .make = [](const CouplingParts& parts, const CouplingOptions& options) { return std::make_unique<Admm>(parts, options); },
      .topology = Topology::centre,
      .least_replicas = 2,
      .default_period = 0,
      .whole_steps = true,
      .keeps_replicas = true,
      .options =
          {{.name = "penalty", .usual = 1.0, .help = "admm: rho, strength of the coupling to the centre, above 0", .low = 0}},
      .check =
          [](const OptionValues& values, const RunFacts&) {
            if (!(values.get<double>("penalty") > 0)) throw UsageError("--penalty 0 must be above 0");
          }};
}

}  // namespace rubato::coupling_detail
