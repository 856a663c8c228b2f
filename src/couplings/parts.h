#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rubato/couplings/coupling.h"

// What several couplings use.

namespace rubato::coupling_detail {

/// Channels whose senders must never wait: as many messages as there are exchanges under way.
inline constexpr std::size_t unbounded = std::size_t{1} << 20;

/// Weights of a range of blocks, block by block.
using BlockSets = std::vector<TensorSetPtr>;
using BlockTensors = std::vector<std::vector<torch::Tensor>>;

std::size_t bytes_of(const std::vector<torch::Tensor>& tensors);
std::size_t bytes_of(const BlockSets& sets);
std::size_t bytes_of(const BlockTensors& blocks);

/// The iterates of `blocks`, read now.
BlockSets iterates(Context& me, const WeightStore& store, BlockRange blocks);

/// Moves `block` by (`target` - `from`) without undoing what others did since `from` was read; if nobody did anything, it becomes
/// `target` to the bit.
void move_towards(Context& me, WeightStore& store, int block, const char* what, const TensorSet& from,
                  const std::vector<torch::Tensor>& target);

/// Whether step `step` is the last of a period.
inline bool period_ends(std::int64_t step, std::int64_t period) {
  return (step + 1) % period == 0;
}

/// The loop of a centre: answers requests until every replica has left. `Request` has a member `leaves`.
template <class Request, class Serve>
void serve_until_all_left(Context& me, const Channel<Request>& requests, int replicas, Serve&& serve) {
  for (int present = replicas; present > 0;) {
    Request request = receive(me, requests);
    if (request.leaves) {
      --present;
    } else {
      serve(std::move(request));
    }
  }
}

/// One tie per replica.
template <class T>
class Ties {
 public:
  template <class Make>
  Ties(int replicas, Make&& make) {
    for (int i = 0; i < replicas; ++i) ties_.push_back(make(i));
  }
  T& operator[](int replica) { return *ties_.at(static_cast<std::size_t>(replica)); }
  const T& operator[](int replica) const { return *ties_.at(static_cast<std::size_t>(replica)); }

 private:
  std::vector<std::unique_ptr<T>> ties_;
};

/// A store for a centre: starts with the model's weights.
StoreOptions centre_store(const StoreOptions& replicas, const std::string& averaging, double rate);

/// The mean of several stores' weights, kept in a store of its own; statistics are those of the first.
class MeanStore {
 public:
  explicit MeanStore(const CouplingParts& parts)
      : stores_(parts.stores), mean_(parts.model, centre_store(parts.store, "none", 0)) {}
  WeightStore& refreshed();

 private:
  std::vector<WeightStore*> stores_;
  WeightStore mean_;
};

/// Weights or gradients of a range of blocks that are summed over replicas; undefined tensors stay undefined.
struct TensorSum final : Summable {
  std::vector<torch::Tensor> tensors;
  std::size_t bytes() const override { return bytes_of(tensors); }
  void add(const Summable& other) override;
};

/// The mean over replicas of `weights`, block by block.
BlockTensors mean_over(Context& me, const GroupSpec& group, int rank, const BlockSets& weights);

using Made = std::unique_ptr<Coupling>;
Made make_none(const CouplingParts&, const CouplingOptions&);
Made make_allreduce(const CouplingParts&, const CouplingOptions&);
Made make_easgd(const CouplingParts&, const CouplingOptions&);
Made make_async_easgd(const CouplingParts&, const CouplingOptions&);
Made make_downpour(const CouplingParts&, const CouplingOptions&);
Made make_adownpour(const CouplingParts&, const CouplingOptions&);
Made make_mvadownpour(const CouplingParts&, const CouplingOptions&);
Made make_mdownpour(const CouplingParts&, const CouplingOptions&);
Made make_admm(const CouplingParts&, const CouplingOptions&);
Made make_local_sgd(const CouplingParts&, const CouplingOptions&);
Made make_lap(const CouplingParts&, const CouplingOptions&);

}  // namespace rubato::coupling_detail
