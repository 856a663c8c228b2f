#include "couplings/parts.h"

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

BlockSets iterates(Context& me, const WeightStore& store, BlockRange blocks) {
  BlockSets sets;
  for (int block = blocks.first; block < blocks.last; ++block) sets.push_back(store.iterate(me, block));
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

StoreOptions centre_store(const StoreOptions& replicas, const std::string& averaging, double rate) {
  StoreOptions options = replicas;
  options.averaging = {averaging, rate};
  options.name = "centre";
  return options;
}

WeightStore& MeanStore::refreshed() {
  Bystander me;
  for (int block = 0; block < mean_.block_count(); ++block) {
    const Snapshot first = stores_.front()->result(block);
    mean_.update(me, block, "mean", [&](const TensorSet&, std::vector<torch::Tensor>& next) {
      for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(first.parameters->tensors[i]);
      for (std::size_t r = 1; r < stores_.size(); ++r) {
        const Snapshot other = stores_[r]->result(block);
        for (std::size_t i = 0; i < next.size(); ++i) next[i].add_(other.parameters->tensors[i]);
      }
      if (stores_.size() == 1) return;
      for (torch::Tensor& tensor : next) tensor.div_(static_cast<double>(stores_.size()));
    });
    // Replaces the statistics: the difference to what is there now is all that changes.
    mean_.merge_buffers(me, block, mean_.read(me, block).buffers, first.buffers->tensors);
  }
  return mean_;
}

void TensorSum::add(const Summable& other) {
  torch::NoGradGuard no_grad;
  const auto& theirs = static_cast<const TensorSum&>(other).tensors;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    // Not in place: a gradient may share memory with another, and weights belong to a snapshot.
    if (tensors[i].defined()) tensors[i] = tensors[i] + theirs.at(i);
  }
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
    for (std::size_t i = 0; i < set->tensors.size(); ++i) block.push_back(*next++ / static_cast<double>(group.size));
  }
  return means;
}

}  // namespace rubato::coupling_detail
