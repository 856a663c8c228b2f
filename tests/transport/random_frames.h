#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "rubato/transport/frame.h"

namespace rubato::test {

/// Reproducible choices.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t any() { return engine_(); }
  std::size_t below(std::size_t end) { return engine_() % end; }
  char byte() { return static_cast<char>(engine_()); }
  std::string bytes(std::size_t count) {
    std::string text(count, 0);
    for (char& one : text) one = byte();
    return text;
  }

 private:
  std::mt19937_64 engine_;
};

inline Blob blob_of(const std::string& bytes) {
  const auto owner = std::make_shared<const std::string>(bytes);
  return {owner, owner->data(), owner->size()};
}

inline std::string bytes_of(const Blob& blob) {
  return blob.bytes == 0 ? std::string() : std::string(static_cast<const char*>(blob.data), blob.bytes);
}

/// What follows the head on the way.
inline std::vector<Blob> parts_of(const Frame& frame) {
  std::vector<Blob> parts;
  for (const Packed::Tensor& tensor : frame.content.tensors) {
    if (tensor.type != -1) parts.push_back(tensor.content);
  }
  return parts;
}

inline Packed::Tensor random_tensor(Dice& dice) {
  static constexpr int types[] = {-1, 0, 1, 2, 3, 4, 5, 6, 7, 11, 15};
  Packed::Tensor tensor{types[dice.below(std::size(types))], {}, {}};
  if (tensor.type == -1) return tensor;
  std::size_t bytes = element_bytes(tensor.type);
  for (std::size_t left = dice.below(4); left > 0; --left) {
    tensor.sizes.push_back(static_cast<std::int64_t>(dice.below(4)));
    bytes *= static_cast<std::size_t>(tensor.sizes.back());
  }
  tensor.content = blob_of(dice.bytes(bytes));
  return tensor;
}

inline Frame random_frame(Dice& dice) {
  Frame frame;
  frame.kind = static_cast<FrameKind>(1 + dice.below(10));
  frame.about = dice.bytes(dice.below(9));
  frame.serial = static_cast<std::int64_t>(dice.any() >> dice.below(64));
  for (std::size_t left = dice.below(5); left > 0; --left) {
    frame.content.numbers.push_back(static_cast<std::int64_t>(dice.any() >> dice.below(64)));
  }
  for (std::size_t left = dice.below(4); left > 0; --left) frame.content.texts.push_back(dice.bytes(dice.below(12)));
  for (std::size_t left = dice.below(4); left > 0; --left) frame.content.tensors.push_back(random_tensor(dice));
  return frame;
}

/// Changes a byte or a bit, takes out, puts in, repeats or cuts off.
inline void mutate(Dice& dice, std::string& text) {
  const std::size_t at = dice.below(text.size() + 1), length = std::min(1 + dice.below(8), text.size() - at);
  switch (dice.below(6)) {
    case 0:
      if (at < text.size()) text[at] = dice.byte();
      break;
    case 1:
      if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << dice.below(8)));
      break;
    case 2:
      text.erase(at, length);
      break;
    case 3:
      text.insert(at, dice.bytes(1 + dice.below(8)));
      break;
    case 4:
      text.insert(dice.below(text.size() + 1), text.substr(at, length));
      break;
    default:
      text.resize(at);
  }
}

}  // namespace rubato::test
