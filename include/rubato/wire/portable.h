#pragma once

#include <cstdint>
#include <string>
#include <tuple>

#include "rubato/context/message.h"
#include "rubato/model/block_range.h"
#include "rubato/wire/packing.h"

namespace rubato {

// How members of messages travel, by type.

inline void pack(Packed& packed, const std::int64_t& number) {
  packed.numbers.push_back(number);
}
inline void pack(Packed& packed, const int& count) {
  packed.numbers.push_back(count);
}
inline void pack(Packed& packed, const std::string& text) {
  packed.texts.push_back(text);
}
void pack(Packed& packed, const std::vector<std::int64_t>& numbers);
void pack(Packed& packed, const BlockRange& blocks);

inline void unpack(Unpacker& unpacker, std::int64_t& number) {
  number = unpacker.number();
}
/// What is an int in a message is a number, or an index, of something: never negative, and small.
inline void unpack(Unpacker& unpacker, int& count) {
  count = static_cast<int>(unpacker.count(std::size_t{1} << 20));
}
inline void unpack(Unpacker& unpacker, std::string& text) {
  text = unpacker.text();
}
void unpack(Unpacker& unpacker, std::vector<std::int64_t>& numbers);
void unpack(Unpacker& unpacker, BlockRange& blocks);
inline void unpack(Unpacker& unpacker, torch::Tensor& tensor) {
  tensor = unpack_tensor(unpacker);
}
inline void unpack(Unpacker& unpacker, std::vector<torch::Tensor>& tensors) {
  tensors = unpack_tensors(unpacker);
}
inline void unpack(Unpacker& unpacker, TensorSetPtr& set) {
  set = unpack_set(unpacker);
}
inline void unpack(Unpacker& unpacker, std::vector<TensorSetPtr>& sets) {
  sets = unpack_sets(unpacker);
}
inline void unpack(Unpacker& unpacker, std::vector<std::vector<torch::Tensor>>& blocks) {
  blocks = unpack_blocks(unpacker);
}

/// The members that `T::members(message)` ties together, one after the other.
template <class T>
void pack_members(Packed& packed, const T& message) {
  std::apply([&](const auto&... member) { (pack(packed, member), ...); }, T::members(message));
}

/// The reverse. PackError where something else was packed.
template <class T>
void unpack_members(Unpacker& unpacker, T& message) {
  std::apply([&](auto&... member) { (unpack(unpacker, member), ...); }, T::members(message));
}

/// A message that may cross processes: `static auto members(auto& message)` of T ties what travels.
template <class T>
struct Portable : Message {
  Packed pack() const final {
    Packed packed;
    pack_members(packed, static_cast<const T&>(*this));
    return packed;
  }
  static T unpack(Unpacker& unpacker) {
    T message;
    unpack_members(unpacker, message);
    return message;
  }
};

}  // namespace rubato
