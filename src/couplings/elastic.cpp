#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "couplings/elastic_rule.h"
#include "couplings/entries.h"
#include "couplings/parts.h"
#include "rubato/core/error.h"
#include "rubato/model/recycler.h"

namespace rubato::coupling_detail {
namespace {

/// A replica shows its weights to the centre.
struct ElasticRequest final : PortableRequest<ElasticRequest> {
  BlockRange blocks;
  std::int64_t step = -1;
  BlockSets weights;
  std::size_t bytes() const override { return bytes_of(weights); }
  std::int64_t batch() const override { return step; }
  static auto members(auto& m) { return std::tie(m.blocks, m.step, m.weights); }
};

/// What pulls the replica back.
struct ElasticResponse final : Portable<ElasticResponse> {
  std::int64_t step = -1;  ///< of the request
  BlockSets force;
  std::size_t bytes() const override { return bytes_of(force); }
  static auto members(auto& m) { return std::tie(m.step, m.force); }
};

Channel<ElasticResponse> responses(const std::string& prefix, BlockRange blocks) {
  return {{"responses/" + prefix + std::to_string(blocks.first), unbounded, true}};
}

/// Deep learning with elastic averaging SGD (Zhang, Choromanska, LeCun 2015). Every `period` steps of its own clock a replica
/// shows the centre the weights s that its gradient is about to be evaluated at (Algorithm 1, line 4; EAMSGD: the iterate without
/// its look-ahead, Algorithm 2). While the gradient is computed the centre responds with the force alpha (s - c), by which it has
/// moved; at the end of the step the replica moves back by the same force. So the exchange costs no waiting unless the centre is
/// slower than a gradient, and the gradient is that of the weights before the pull.
class ElasticHooks final : public ReplicaHooks {
 public:
  ElasticHooks(int replica, const CouplingOptions& options, const Channel<ElasticRequest>& requests)
      : replica_(replica),
        prefix_(options.prefixes.at(replica)),
        period_(options.period),
        one_step_at_a_time_(options.one_step_at_a_time),
        requests_(requests) {}

  void step_begins(Context& me, WeightStore& store, BlockRange blocks, const std::vector<Snapshot>& weights,
                   std::int64_t step) override {
    if (step % period_ != 0) return;
    ElasticRequest request;
    request.replica = replica_;
    request.blocks = blocks;
    request.step = step;
    if (store.options().optimizer.nesterov) {
      request.weights = iterates(me, store, blocks);
    } else {
      for (const Snapshot& snapshot : weights) request.weights.push_back(snapshot.parameters);
    }
    send(me, requests_, std::move(request));
  }

  void step_ends(Context& me, WeightStore& store, BlockRange blocks, std::int64_t step) override {
    if (step % period_ != 0) return;
    std::optional<ElasticResponse> response;
    do {
      response = receive_unless_lost(me, responses(prefix_, blocks));
    } while (response && is_late(*response, step));
    if (!response) return;  // the centre is away: the replica goes on alone until it is back
    for (int block = blocks.first; block < blocks.last; ++block) {
      const auto& pull = response->force.at(static_cast<std::size_t>(block - blocks.first))->tensors;
      store.update(me, block, "pull", [&](const TensorSet& now, std::vector<torch::Tensor>& next) {
        for (std::size_t i = 0; i < next.size(); ++i) torch::sub_out(next[i], now.tensors[i], pull[i]);
      });
    }
  }

 private:
  /// Whether it is the response to a request that was given up because the centre was away. Where several workers of a replica
  /// share the channel nobody can tell: the response to another's request will do, and a late one is a pull of a period ago.
  bool is_late(const ElasticResponse& response, std::int64_t step) const { return one_step_at_a_time_ && response.step < step; }

  int replica_;
  std::string prefix_;
  std::int64_t period_;
  bool one_step_at_a_time_;
  Channel<ElasticRequest> requests_;
};

class Elastic : public CentreCoupling {
 public:
  Elastic(const CouplingParts& parts, const CouplingOptions& options)
      : CentreCoupling(parts, options, {}),
        moving_rate_(options.values.get<double>("moving-rate")),
        requests_{{"requests", unbounded}, [this](const ElasticRequest& request) { return is_usable(request); }},
        hooks_(parts, [&](int i) { return std::make_unique<ElasticHooks>(i, options, requests_); }) {
    for (int block = 0; block < centre_.block_count(); ++block) forces_.push_back(std::make_shared<Recycler>());
  }

  ReplicaHooks& hooks(int replica) override { return hooks_[replica]; }
  std::vector<Role> roles(std::int64_t) override {
    if (!options_.centre_here) return {};
    return {{.name = "centre", .run = [this](Context& me) {
               serve_until_all_left(
                   me, requests_, options_, centre_, [&](ElasticRequest request) { serve(me, std::move(request)); },
                   [&](int replica) { left(me, replica); }, &exchanges_);
             }}};
  }
  void replica_left(Context& me, int replica) override { leave_centre(me, requests_, replica); }
  void replica_joins(Context& me, WeightStore& store, int replica, std::int64_t step) override {
    join_centre(me, requests_, store, replica, step);
  }
  std::string requests() const override { return requests_.name; }

 protected:
  virtual void serve(Context& me, ElasticRequest request) = 0;
  /// The replica sends no more requests.
  virtual void left(Context&, int) {}

  /// c += sum of alpha (x_i - c) over `requests`, all of the same blocks and against the same c (Jacobi order); responds to each.
  void exchange(Context& me, std::vector<ElasticRequest> requests) {
    const BlockRange blocks = requests.front().blocks;
    std::vector<BlockSets> forces(requests.size());
    for (int block = blocks.first; block < blocks.last; ++block) {
      const auto local = static_cast<std::size_t>(block - blocks.first);
      const auto after = centre_.update(me, block, "centre", [&](const TensorSet& now, std::vector<torch::Tensor>& next) {
        for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(now.tensors[i]);
        for (std::size_t v = 0; v < requests.size(); ++v) {
          auto force = forces_[static_cast<std::size_t>(block)]->take(now.tensors);
          elastic_force(requests[v].weights[local]->tensors, now.tensors, moving_rate_, force->tensors);
          require_finite(requests[v].replica, force->tensors);
          for (std::size_t i = 0; i < next.size(); ++i) next[i].add_(force->tensors[i]);
          forces[v].push_back(std::move(force));
        }
      });
      for (const ElasticRequest& request : requests)
        exchanges_.exchanged(request.replica, block, after->version - 1, after->version);
    }
    std::vector<int> replicas;
    std::vector<std::int64_t> steps;
    for (const ElasticRequest& request : requests) {
      replicas.push_back(request.replica);
      steps.push_back(request.step);
    }
    requests.clear();  // before anyone has a response: a replica then publishes into the memory that its request held
    for (std::size_t v = 0; v < replicas.size(); ++v) {
      ElasticResponse response;
      response.step = steps[v];
      response.force = std::move(forces[v]);
      send(me, responses(options_.prefixes.at(replicas[v]), blocks), std::move(response));
    }
  }

 private:
  bool is_usable(const ElasticRequest& request) const {
    if (request.replica < 0 || request.replica >= options_.replicas) return false;
    return request.joins || request.leaves || fits(request.weights, request.blocks, centre_);
  }

  double moving_rate_;
  Channel<ElasticRequest> requests_;
  std::vector<std::shared_ptr<Recycler>> forces_;  // per block: memory of forces that have been applied
  HooksOf<ElasticHooks> hooks_;
};

/// Asynchronous EASGD and, with a look-ahead optimizer in the replicas, EAMSGD: requests are served as they come.
class AsyncElastic final : public Elastic {
 public:
  using Elastic::Elastic;

 private:
  void serve(Context& me, ElasticRequest request) override {
    std::vector<ElasticRequest> one;
    one.push_back(std::move(request));
    exchange(me, std::move(one));
  }
};

/// Synchronous EASGD: the requests of all replicas in the same step are served together,
///   x_i' = x_i - eta g_i - alpha (x_i - c),  c' = c + alpha sum_i (x_i - c).
class SyncElastic final : public Elastic {
 public:
  SyncElastic(const CouplingParts& parts, const CouplingOptions& options)
      : Elastic(parts, options), present_(static_cast<std::size_t>(options.replicas)) {}
  std::vector<Role> roles(std::int64_t first_step) override {
    present_ = static_cast<std::size_t>(options_.replicas);
    rounds_.clear();
    return Elastic::roles(first_step);
  }

 private:
  using Round = std::map<int, ElasticRequest>;  // by replica: same bits whoever came first
  void serve(Context& me, ElasticRequest request) override {
    const std::tuple key(request.step, request.blocks.first, request.blocks.last);
    Round& round = rounds_[key];
    round.emplace(request.replica, std::move(request));
    if (round.size() < present_) return;
    Round complete = std::move(round);
    rounds_.erase(key);
    finish(me, std::move(complete));
  }
  void finish(Context& me, Round round) {
    std::vector<ElasticRequest> requests;
    for (auto& [replica, one] : round) requests.push_back(std::move(one));
    exchange(me, std::move(requests));
  }
  /// The others finish the rounds that it will not take part in.
  void left(Context& me, int replica) override {
    --present_;
    for (auto next = rounds_.begin(); next != rounds_.end();) {
      auto at = next++;
      if (at->second.size() < present_ + at->second.count(replica)) continue;
      Round complete = std::move(at->second);
      rounds_.erase(at);
      finish(me, std::move(complete));
    }
  }
  std::size_t present_;
  std::map<std::tuple<std::int64_t, int, int>, Round> rounds_;  ///< by step and blocks
};

std::vector<OptionSpec> rate_options() {
  return {{.name = "moving-rate",
           .usual = 0.0,
           .help = "elastic averaging: alpha, how far replica and centre move towards each other",
           .low = 0,
           .of_replicas = true,
           .per_replica = true,
           .worked_out = true},
          {.name = "beta",
           .usual = 0.9,
           .help = "elastic averaging: moving rate of the centre, replicas x alpha; default 0.9",
           .low = 0,
           .of_replicas = true,
           .worked_out = true}};
}

/// alpha = beta / p, and the reverse.
void complete_rates(OptionValues& values, const RunFacts& facts) {
  if (values.has("moving-rate") && values.has("beta")) return;
  if (!values.has("moving-rate")) {
    values.set("moving-rate", (values.has("beta") ? values.get<double>("beta") : 0.9) / facts.replicas);
  }
  values.set("beta", values.get<double>("moving-rate") * facts.replicas);
}

void check_rates(const std::string& coupling, const OptionValues& values, const RunFacts& facts) {
  const double rate = values.get<double>("moving-rate");
  if (values.get<double>("beta") != rate * facts.replicas) {
    throw UsageError("--moving-rate alpha and --beta = replicas x alpha say the same: give one of them");
  }
  const CouplingEntry& entry = find_coupling(coupling);
  const double bound = largest_moving_rate(entry, facts.learning_rate, facts.replicas);
  if (rate <= bound) return;
  throw UsageError(
      fmt::format("--moving-rate {:.4g} is beyond {:.4g} = {}, where {} with learning rate {:.4g} is unstable even on "
                  "a quadratic: give less, 0.9 / replicas is usual",
                  rate, bound, entry.fixed_protocol ? "(4 - 2 lr) / (2 + 2 p - lr p)" : "(4 - 2 lr) / (4 - lr)", coupling,
                  facts.learning_rate));
}

template <class T>
CouplingEntry elastic(const std::string& name, const std::string& summary, const std::string& part_of_paper) {
  return {.name = name,
          .summary = summary,
          .paper = easgd_paper + part_of_paper,
          .make = [](const CouplingParts& parts, const CouplingOptions& options) { return std::make_unique<T>(parts, options); },
          .topology = Topology::centre,
          .loses_replicas = true,
          .options = rate_options(),
          .complete = complete_rates,
          .check = [name](const OptionValues& values, const RunFacts& facts) { check_rates(name, values, facts); }};
}

}  // namespace

CouplingEntry easgd() {
  CouplingEntry entry = elastic<SyncElastic>(
      "easgd", "synchronous elastic averaging: all replicas meet a centre every --period steps (--moving-rate)", "");
  entry.fixed_protocol = true;
  return entry;
}

CouplingEntry async_easgd() {
  CouplingEntry entry = elastic<AsyncElastic>(
      "async-easgd", "asynchronous elastic averaging: each replica meets the centre by its own clock (--period, --moving-rate)",
      ", algorithm 1");
  entry.membership = Membership::free;
  entry.changes_members = true;
  return entry;
}

CouplingEntry eamsgd() {
  CouplingEntry entry =
      elastic<AsyncElastic>("eamsgd", "async-easgd with Nesterov momentum in the replicas (--momentum)", ", algorithm 2");
  entry.membership = Membership::free;
  entry.look_ahead = entry.changes_members = true;
  return entry;
}

}  // namespace rubato::coupling_detail

double rubato::largest_moving_rate(const CouplingEntry& coupling, double rate, int replicas) {
  const double p = replicas;
  return coupling.fixed_protocol ? (4 - 2 * rate) / (2 + 2 * p - rate * p) : (4 - 2 * rate) / (4 - rate);
}
