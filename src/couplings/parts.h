#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rubato/couplings/coupling.h"
#include "rubato/wire/portable.h"
#include "rubato/wire/tensor_sum.h"

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

/// The centre's weights, for a replica that joins.
struct Welcome final : Portable<Welcome> {
  BlockSets centre;
  std::size_t bytes() const override { return bytes_of(centre); }
  static auto members(auto& m) { return std::tie(m.centre); }
};
inline Channel<Welcome> welcomes(int replica) {
  return {{"welcome/" + std::to_string(replica), 1, true}};
}

/// What a request to a centre says besides what a method is about: `joins` and `leaves` say that `replica` does.
struct Request : Message {
  int replica = -1;
  bool joins = false, leaves = false;
  std::size_t bytes() const override { return 0; }
  Packed pack_request() const;
  void unpack_request(Unpacker& unpacker);
};

/// A request that may cross processes; see Portable. Who joins or leaves says no more than that.
template <class T>
struct PortableRequest : Request {
  Packed pack() const final {
    Packed packed = pack_request();
    if (!joins && !leaves) pack_members(packed, static_cast<const T&>(*this));
    return packed;
  }
  static T unpack(Unpacker& unpacker) {
    T request;
    request.unpack_request(unpacker);
    if (!request.joins && !request.leaves) unpack_members(unpacker, request);
    return request;
  }
};

/// Whether the weights or gradients of `blocks` that came from elsewhere have the shapes of `store`'s.
bool fits(const BlockSets& sets, BlockRange blocks, const WeightStore& store);
/// Whether no tensor is missing, which a gradient's may.
bool complete(const BlockTensors& tensors);
bool fits(const BlockTensors& tensors, BlockRange blocks, const WeightStore& store);
bool fits(const std::vector<torch::Tensor>& tensors, int block, const WeightStore& store);

/// DivergedError where what `replica` brings to the centre is not finite, before the centre takes any of it.
void require_finite(int replica, const std::vector<torch::Tensor>& tensors);
void require_finite(int replica, const BlockTensors& blocks);

/// Counts how stale exchanges with a centre are, for the centre's role; read between segments.
class ExchangeCount {
 public:
  ExchangeCount(int replicas, int blocks);
  /// `replica` brings something to `block` of the centre, whose version was `before` and is `after` when it has its response.
  void exchanged(int replica, int block, std::int64_t before, std::int64_t after);
  /// `replica` has taken over the centre's `version` of `block`.
  void joined(int replica, int block, std::int64_t version);
  StalenessCount of(int block) const;
  void save(torch::serialize::OutputArchive& archive) const;
  /// Of an archive with another number of replicas only the counts.
  void load(torch::serialize::InputArchive& archive);

 private:
  std::vector<StalenessCount> counts_;                // by block
  std::vector<std::vector<std::int64_t>> responded_;  // by replica and block: the centre's version at the last response
};

/// Gives `store` the weights `centre`; its clock becomes `clock`, or the centre's.
void adopt(Actor& me, WeightStore& store, const char* what, const BlockSets& centre, std::optional<std::int64_t> clock);
/// The newest of all blocks.
BlockSets newest(Actor& me, const WeightStore& store);

/// Asks the centre that serves `requests` for its weights and gives them to `store`; its clock becomes `clock`, or the centre's.
template <class R>
BlockSets join_centre(Context& me, const Channel<R>& requests, WeightStore& store, int replica,
                      std::optional<std::int64_t> clock) {
  R request;
  request.replica = replica;
  request.joins = true;
  send(me, requests, std::move(request));
  BlockSets centre = receive(me, welcomes(replica)).centre;
  adopt(me, store, "join", centre, clock);
  return centre;
}

template <class R>
void leave_centre(Context& me, const Channel<R>& requests, int replica) {
  R farewell;
  farewell.replica = replica;
  farewell.leaves = true;
  send(me, requests, std::move(farewell));
}

/// The loop of a centre: serves requests until every replica has left, from each process that has a part of it. `left(replica)`:
/// it has, which may be in the middle of a step that others wait to finish.
template <class R, class Serve, class Left>
void serve_until_all_left(Context& me, const Channel<R>& requests, const CouplingOptions& options, const WeightStore& centre,
                          Serve&& serve, Left&& left, ExchangeCount* exchanges = nullptr) {
  std::vector<int> parts(static_cast<std::size_t>(options.replicas), options.parts);
  std::vector<bool> gone(static_cast<std::size_t>(options.replicas));
  for (int present = options.replicas; present > 0;) {
    R request = receive(me, requests);
    const auto replica = static_cast<std::size_t>(request.replica);
    if (request.joins) gone.at(replica) = false;
    if (gone.at(replica)) continue;  // sent before it was taken for dead: the others have gone on without it
    if (request.leaves) {
      if (--parts.at(replica) != 0) continue;
      gone[replica] = true;
      --present;
      left(request.replica);
    } else if (request.joins) {
      Welcome welcome;
      for (int block = 0; block < centre.block_count(); ++block) {
        welcome.centre.push_back(centre.read(me, block).parameters);
        if (exchanges != nullptr) exchanges->joined(request.replica, block, welcome.centre.back()->version);
      }
      send(me, welcomes(request.replica), std::move(welcome));
    } else {
      serve(std::move(request));
    }
  }
}

template <class R, class Serve>
void serve_until_all_left(Context& me, const Channel<R>& requests, const CouplingOptions& options, const WeightStore& centre,
                          Serve&& serve, ExchangeCount* exchanges = nullptr) {
  serve_until_all_left(
      me, requests, options, centre, std::forward<Serve>(serve), [](int) {}, exchanges);
}

/// A coupling whose replicas exchange weights with a centre, which counts how stale what they bring is.
class CentreCoupling : public Coupling {
 public:
  /// `averaging`: of the centre's weights.
  CentreCoupling(const CouplingParts& parts, const CouplingOptions& options, const AveragingOptions& averaging);
  void replica_resumes(Actor& me, WeightStore& store, int replica, std::int64_t step) override;
  WeightStore& evaluation_weights() override { return centre_; }
  std::optional<StalenessCount> centre_staleness(int block) const override;
  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 protected:
  CouplingOptions options_;
  WeightStore centre_;
  ExchangeCount exchanges_;
};

/// The hooks of each replica of this process.
template <class T>
class HooksOf {
 public:
  template <class Make>
  HooksOf(const CouplingParts& parts, Make&& make) {
    for (std::size_t i = 0; i < parts.stores.size(); ++i) {
      hooks_.push_back(parts.stores[i] == nullptr ? nullptr : make(static_cast<int>(i)));
    }
  }
  T& operator[](int replica) { return *hooks_.at(static_cast<std::size_t>(replica)); }
  const T& operator[](int replica) const { return *hooks_.at(static_cast<std::size_t>(replica)); }

 private:
  std::vector<std::unique_ptr<T>> hooks_;
};

/// Options of a centre's store: it starts with the model's weights; without content where the centre is in another process.
StoreOptions centre_store(const CouplingParts& parts, const AveragingOptions& averaging);

/// The mean of several stores' iterates (of Nesterov momentum without its look-ahead), or the average that a single one keeps, in
/// a store of its own; statistics are those of the first.
class MeanStore {
 public:
  explicit MeanStore(const CouplingParts& parts)
      : stores_(parts.stores),
        averages_(parts.store.averaging.kind != Averaging::none),
        mean_(parts.model, centre_store(parts, {})) {}
  WeightStore& refreshed();

 private:
  std::vector<WeightStore*> stores_;
  bool averages_;
  WeightStore mean_;
};

/// The mean over replicas of `weights`, block by block.
BlockTensors mean_over(Context& me, const GroupSpec& group, int rank, const BlockSets& weights);

}  // namespace rubato::coupling_detail
