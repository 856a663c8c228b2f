#pragma once

#include <vector>

#include "rubato/context/packed.h"
#include "rubato/model/weight_store.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// Tensors into what travels between processes, and out of it. Packing shares memory with CPU tensors that lie contiguously (in
/// either memory format of images) and copies others; unpacking shares memory with what came. Undefined tensors stay undefined.
/// A set is kept alive as a whole; tensors of a set are not packed without it.
void pack(Packed& packed, const torch::Tensor& tensor);
void pack(Packed& packed, const std::vector<torch::Tensor>& tensors);
void pack(Packed& packed, const TensorSetPtr& set);
void pack(Packed& packed, const std::vector<TensorSetPtr>& sets);
void pack(Packed& packed, const std::vector<std::vector<torch::Tensor>>& blocks);

/// PackError where something else was packed.
torch::Tensor unpack_tensor(Unpacker& unpacker);
std::vector<torch::Tensor> unpack_tensors(Unpacker& unpacker);
TensorSetPtr unpack_set(Unpacker& unpacker);
std::vector<TensorSetPtr> unpack_sets(Unpacker& unpacker);
std::vector<std::vector<torch::Tensor>> unpack_blocks(Unpacker& unpacker);

/// Where unpacked tensors are wanted: the CPU unless told otherwise. Once, before the first message.
void unpack_to(torch::Device device);

/// Whether `tensors` have the types and shapes of `like`; undefined ones fit everywhere.
bool same_shapes(const std::vector<torch::Tensor>& tensors, const std::vector<torch::Tensor>& like);

/// Any text, a tensor's bytes among them, as one piece.
void pack_bytes(Packed& packed, std::string bytes);
std::string unpack_bytes(Unpacker& unpacker);

}  // namespace rubato
