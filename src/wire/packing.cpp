#include "rubato/wire/packing.h"

#include <cstdint>

#include "rubato/wire/portable.h"

namespace rubato {
namespace {

constexpr std::size_t most_tensors = std::size_t{1} << 16;
/// libtorch's own. Its kernels choose by alignment, and what they then compute differs in the last bits: a tensor that has come
/// over a socket has to lie as it did at its sender.
constexpr std::uintptr_t alignment = 64;
torch::Device wanted_device = torch::kCPU;

/// Images whose channels lie next to each other.
bool is_channels_last(const torch::Tensor& tensor) {
  return tensor.dim() == 4 && !tensor.is_contiguous() && tensor.is_contiguous(torch::MemoryFormat::ChannelsLast);
}

}  // namespace

void unpack_to(torch::Device device) {
  wanted_device = device;
}

namespace {

/// `owner` of the tensor's memory; null: the tensor itself.
void pack(Packed& packed, const torch::Tensor& tensor, std::shared_ptr<const void> owner) {
  if (!tensor.defined()) {
    packed.tensors.push_back({.type = -1});
    return;
  }
  const bool channels_last = is_channels_last(tensor);
  torch::Tensor flat = tensor.detach();
  if (channels_last) flat = flat.permute({0, 2, 3, 1});
  flat = flat.cpu().contiguous();
  packed.numbers.push_back(channels_last ? 1 : 0);
  const bool shared = flat.data_ptr() == tensor.data_ptr();
  if (!shared || owner == nullptr) owner = std::make_shared<torch::Tensor>(flat);
  packed.tensors.push_back(
      {static_cast<int>(flat.scalar_type()), flat.sizes().vec(), {std::move(owner), flat.data_ptr(), flat.nbytes()}});
}

}  // namespace

void pack(Packed& packed, const torch::Tensor& tensor) {
  pack(packed, tensor, nullptr);
}

torch::Tensor unpack_tensor(Unpacker& unpacker) {
  const Packed::Tensor& tensor = unpacker.tensor();
  if (tensor.type < 0) return {};
  const bool channels_last = unpacker.count(1) == 1;
  const auto type = static_cast<torch::ScalarType>(tensor.type);
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.content.data);
  torch::Tensor flat = address % alignment == 0 ? torch::from_blob(
                                                      const_cast<void*>(tensor.content.data), tensor.sizes,
                                                      [owner = tensor.content.owner](void*) {}, type)
                                                : torch::empty(tensor.sizes, type);
  if (flat.data_ptr() != tensor.content.data) std::memcpy(flat.data_ptr(), tensor.content.data, tensor.content.bytes);
  if (channels_last) {
    if (flat.dim() != 4) throw PackError("a tensor is no image");
    flat = flat.permute({0, 3, 1, 2});
  }
  return wanted_device.is_cpu() ? flat : flat.to(wanted_device);
}

void pack(Packed& packed, const std::vector<torch::Tensor>& tensors) {
  packed.numbers.push_back(static_cast<std::int64_t>(tensors.size()));
  for (const torch::Tensor& tensor : tensors) pack(packed, tensor);
}

std::vector<torch::Tensor> unpack_tensors(Unpacker& unpacker) {
  std::vector<torch::Tensor> tensors(unpacker.count(unpacker.tensors_left()));
  for (torch::Tensor& tensor : tensors) tensor = unpack_tensor(unpacker);
  return tensors;
}

void pack(Packed& packed, const TensorSetPtr& set) {
  packed.numbers.push_back(set->version);
  packed.numbers.push_back(set->clock);
  packed.numbers.push_back(static_cast<std::int64_t>(set->tensors.size()));
  // The set has to live on: when it dies, its memory is given to the next one, whoever else holds the tensors.
  for (const torch::Tensor& tensor : set->tensors) pack(packed, tensor, set);
}

TensorSetPtr unpack_set(Unpacker& unpacker) {
  auto set = std::make_shared<TensorSet>();
  set->version = unpacker.number();
  set->clock = unpacker.number();
  set->tensors = unpack_tensors(unpacker);
  return set;
}

void pack(Packed& packed, const std::vector<TensorSetPtr>& sets) {
  packed.numbers.push_back(static_cast<std::int64_t>(sets.size()));
  for (const TensorSetPtr& set : sets) pack(packed, set);
}

std::vector<TensorSetPtr> unpack_sets(Unpacker& unpacker) {
  std::vector<TensorSetPtr> sets(unpacker.count(most_tensors));
  for (TensorSetPtr& set : sets) set = unpack_set(unpacker);
  return sets;
}

void pack(Packed& packed, const std::vector<std::vector<torch::Tensor>>& blocks) {
  packed.numbers.push_back(static_cast<std::int64_t>(blocks.size()));
  for (const auto& block : blocks) pack(packed, block);
}

std::vector<std::vector<torch::Tensor>> unpack_blocks(Unpacker& unpacker) {
  std::vector<std::vector<torch::Tensor>> blocks(unpacker.count(most_tensors));
  for (auto& block : blocks) block = unpack_tensors(unpacker);
  return blocks;
}

void pack(Packed& packed, const std::vector<std::int64_t>& numbers) {
  packed.numbers.push_back(static_cast<std::int64_t>(numbers.size()));
  packed.numbers.insert(packed.numbers.end(), numbers.begin(), numbers.end());
}

void unpack(Unpacker& unpacker, std::vector<std::int64_t>& numbers) {
  numbers.resize(unpacker.count(most_tensors));
  for (std::int64_t& number : numbers) number = unpacker.number();
}

void pack(Packed& packed, const BlockRange& blocks) {
  pack(packed, blocks.first);
  pack(packed, blocks.last);
}

void unpack(Unpacker& unpacker, BlockRange& blocks) {
  unpack(unpacker, blocks.first);
  unpack(unpacker, blocks.last);
}

bool same_shapes(const std::vector<torch::Tensor>& tensors, const std::vector<torch::Tensor>& like) {
  return std::equal(tensors.begin(), tensors.end(), like.begin(), like.end(), [](const auto& one, const auto& other) {
    return !one.defined() || (other.defined() && one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type());
  });
}

void pack_bytes(Packed& packed, std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  const Blob content{owner, owner->data(), owner->size()};
  packed.tensors.push_back({0, {static_cast<std::int64_t>(content.bytes)}, content});
}

std::string unpack_bytes(Unpacker& unpacker) {
  const Packed::Tensor& tensor = unpacker.tensor();
  if (tensor.type != 0 || tensor.sizes.size() != 1) throw PackError("bytes are expected");
  return {static_cast<const char*>(tensor.content.data), tensor.content.bytes};
}

}  // namespace rubato
