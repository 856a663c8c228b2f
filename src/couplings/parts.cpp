#include "couplings/parts.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "rubato/core/error.h"

namespace rubato::coupling_detail {

std::size_t bytes_of(const std::vector<torch::Tensor>& tensors) {
  std::size_t bytes = 0;
  for (const torch::Tensor& tensor : tensors) bytes += tensor.defined() ? tensor.nbytes() : 0;
  return bytes;
}

std::size_t bytes_of(const BlockSets& sets) {
  std::size_t bytes = 0;
  for (const TensorSetPtr& set : sets) bytes += bytes_of(set->tensors);
  return bytes;
}

std::size_t bytes_of(const BlockTensors& blocks) {
  std::size_t bytes = 0;
  for (const auto& tensors : blocks) bytes += bytes_of(tensors);
  return bytes;
}

Packed Request::pack_request() const {
  Packed packed;
  packed.numbers = {replica, joins ? 1 : 0, leaves ? 1 : 0};
  return packed;
}

void Request::unpack_request(Unpacker& unpacker) {
  replica = static_cast<int>(unpacker.count(std::size_t{1} << 20));
  joins = unpacker.count(1) == 1;
  leaves = unpacker.count(1) == 1;
}

bool fits(const std::vector<torch::Tensor>& tensors, int block, const WeightStore& store) {
  Bystander me;
  return block >= 0 && block < store.block_count() && same_shapes(tensors, store.read(me, block).parameters->tensors);
}

bool fits(const BlockTensors& tensors, BlockRange blocks, const WeightStore& store) {
  if (blocks.first < 0 || blocks.last > store.block_count() || blocks.first >= blocks.last) return false;
  if (static_cast<int>(tensors.size()) != blocks.last - blocks.first) return false;
  for (int block = blocks.first; block < blocks.last; ++block) {
    if (!fits(tensors[static_cast<std::size_t>(block - blocks.first)], block, store)) return false;
  }
  return true;
}

bool fits(const BlockSets& sets, BlockRange blocks, const WeightStore& store) {
  BlockTensors tensors;
  for (const TensorSetPtr& set : sets) {
    if (set == nullptr) return false;
    tensors.push_back(set->tensors);
  }
  if (!complete(tensors)) return false;
  return fits(tensors, blocks, store);
}

bool complete(const BlockTensors& tensors) {
  return std::ranges::all_of(tensors, [](const auto& block) { return std::ranges::all_of(block, &torch::Tensor::defined); });
}

void require_finite(int replica, const std::vector<torch::Tensor>& tensors) {
  torch::NoGradGuard no_grad;
  for (const torch::Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.is_meta() || !tensor.is_floating_point()) continue;
    if (std::isfinite(tensor.sum().item<double>())) continue;
    throw DivergedError(
        "replica " + std::to_string(replica) +
        " brings weights to the centre that are not finite: the centre keeps its own, and so does the last checkpoint; "
        "try a lower --lr");
  }
}

void require_finite(int replica, const BlockTensors& blocks) {
  for (const auto& tensors : blocks) require_finite(replica, tensors);
}

BlockSets iterates(Context& me, const WeightStore& store, BlockRange blocks) {
  BlockSets sets;
  for (int block = blocks.first; block < blocks.last; ++block) sets.push_back(store.iterate(me, block));
  return sets;
}

void adopt(Actor& me, WeightStore& store, const char* what, const BlockSets& centre, std::optional<std::int64_t> clock) {
  for (int block = 0; block < store.block_count(); ++block) {
    const TensorSet& from = *centre.at(static_cast<std::size_t>(block));
    store.update(
        me, block, what,
        [&](const TensorSet&, std::vector<torch::Tensor>& next) {
          for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(from.tensors[i]);
        },
        clock.value_or(from.clock));
  }
}

BlockSets newest(Actor& me, const WeightStore& store) {
  BlockSets sets;
  for (int block = 0; block < store.block_count(); ++block) sets.push_back(store.read(me, block).parameters);
  return sets;
}

void move_towards(Context& me, WeightStore& store, int block, const char* what, const TensorSet& from,
                  const std::vector<torch::Tensor>& target) {
  const bool published_is_iterate = !store.options().optimizer.nesterov;
  store.update(me, block, what, [&](const TensorSet& now, std::vector<torch::Tensor>& next) {
    const bool untouched = published_is_iterate && now.version == from.version;
    for (std::size_t i = 0; i < next.size(); ++i) {
      if (untouched) {
        next[i].copy_(target[i]);
      } else {
        torch::sub_out(next[i], target[i], from.tensors[i]).add_(now.tensors[i]);
      }
    }
  });
}

ExchangeCount::ExchangeCount(int replicas, int blocks)
    : counts_(static_cast<std::size_t>(blocks)),
      responded_(static_cast<std::size_t>(replicas), std::vector<std::int64_t>(static_cast<std::size_t>(blocks))) {}

void ExchangeCount::exchanged(int replica, int block, std::int64_t before, std::int64_t after) {
  StalenessCount& count = counts_.at(static_cast<std::size_t>(block));
  std::int64_t& responded = responded_.at(static_cast<std::size_t>(replica)).at(static_cast<std::size_t>(block));
  const std::int64_t staleness = std::max<std::int64_t>(0, before - responded);
  ++count.updates;
  count.sum += staleness;
  count.max = std::max(count.max, staleness);
  responded = after;
}

void ExchangeCount::joined(int replica, int block, std::int64_t version) {
  responded_.at(static_cast<std::size_t>(replica)).at(static_cast<std::size_t>(block)) = version;
}

StalenessCount ExchangeCount::of(int block) const {
  return counts_.at(static_cast<std::size_t>(block));
}

void ExchangeCount::save(torch::serialize::OutputArchive& archive) const {
  std::vector<std::int64_t> numbers;
  for (const StalenessCount& count : counts_) numbers.insert(numbers.end(), {count.updates, count.sum, count.max});
  for (const auto& blocks : responded_) numbers.insert(numbers.end(), blocks.begin(), blocks.end());
  archive.write("exchanges", torch::IValue(numbers));
}

void ExchangeCount::load(torch::serialize::InputArchive& archive) {
  torch::IValue value;
  archive.read("exchanges", value);
  const auto numbers = value.toIntVector();
  const std::size_t blocks = counts_.size();
  if (numbers.size() < 3 * blocks) throw DataError("the checkpoint does not fit this model: its centre has fewer blocks");
  for (std::size_t block = 0; block < blocks; ++block) {
    counts_[block] = {numbers[3 * block], numbers[3 * block + 1], numbers[3 * block + 2]};
  }
  if (numbers.size() != 3 * blocks + blocks * responded_.size()) return;
  auto next = numbers.begin() + static_cast<std::ptrdiff_t>(3 * blocks);
  for (auto& of_replica : responded_) {
    for (std::int64_t& version : of_replica) version = *next++;
  }
}

StoreOptions centre_store(const CouplingParts& parts, const AveragingOptions& averaging) {
  StoreOptions options = parts.store;
  options.averaging = averaging;
  options.name = "centre";
  if (!parts.centre_here) options.device = torch::kMeta;
  return options;
}

CentreCoupling::CentreCoupling(const CouplingParts& parts, const CouplingOptions& options, const AveragingOptions& averaging)
    : options_(options),
      centre_(parts.model, centre_store(parts, averaging)),
      exchanges_(options.replicas, centre_.block_count()) {}

void CentreCoupling::replica_resumes(Actor& me, WeightStore& store, int /*replica*/, std::int64_t step) {
  adopt(me, store, "resume", newest(me, centre_), step);
}

std::optional<StalenessCount> CentreCoupling::centre_staleness(int block) const {
  return options_.centre_here ? std::optional(exchanges_.of(block)) : std::nullopt;
}

void CentreCoupling::save(torch::serialize::OutputArchive& archive) const {
  centre_.save(archive);
  exchanges_.save(archive);
}

void CentreCoupling::load(torch::serialize::InputArchive& archive) {
  centre_.load(archive);
  exchanges_.load(archive);
}

WeightStore& MeanStore::refreshed() {
  Bystander me;
  for (int block = 0; block < mean_.block_count(); ++block) {
    const TensorSetPtr first = averages_ ? stores_.front()->result(block).parameters : stores_.front()->iterate(me, block);
    mean_.update(me, block, "mean", [&](const TensorSet&, std::vector<torch::Tensor>& next) {
      for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(first->tensors[i]);
      for (std::size_t r = 1; r < stores_.size(); ++r) {
        const TensorSetPtr other = stores_[r]->iterate(me, block);
        for (std::size_t i = 0; i < next.size(); ++i) next[i].add_(other->tensors[i]);
      }
      if (stores_.size() == 1) return;
      for (torch::Tensor& tensor : next) tensor.div_(static_cast<double>(stores_.size()));
    });
    // Replaces the statistics: the difference to what is there now is all that changes.
    mean_.merge_buffers(me, block, mean_.read(me, block).buffers, stores_.front()->result(block).buffers->tensors);
  }
  return mean_;
}

BlockTensors mean_over(Context& me, const GroupSpec& group, int rank, const BlockSets& weights) {
  auto part = std::make_unique<TensorSum>();
  for (const TensorSetPtr& set : weights) part->tensors.insert(part->tensors.end(), set->tensors.begin(), set->tensors.end());
  const auto sum = std::static_pointer_cast<const TensorSum>(me.all_reduce(group, rank, std::move(part)));
  torch::NoGradGuard no_grad;
  BlockTensors means;
  auto next = sum->tensors.begin();
  for (const TensorSetPtr& set : weights) {
    auto& block = means.emplace_back();
    for (std::size_t i = 0; i < set->tensors.size(); ++i) block.push_back(*next++ / static_cast<double>(sum->parts()));
  }
  return means;
}

}  // namespace rubato::coupling_detail
