#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace rubato {

/// Bytes that somebody keeps alive and nobody writes any more.
struct Blob {
  std::shared_ptr<const void> owner;
  const void* data = nullptr;
  std::size_t bytes = 0;
};

/// A message as it travels between processes: numbers, texts and tensors, each in the order in which they were packed. Tensors
/// are not copied: their owner is the snapshot, or what came from the network.
struct Packed {
  struct Tensor {
    int type = 0;  ///< libtorch's number of the scalar type; -1: an undefined tensor
    std::vector<std::int64_t> sizes;
    Blob content;  ///< contiguous
  };
  std::vector<std::int64_t> numbers;
  std::vector<std::string> texts;
  std::vector<Tensor> tensors;

  std::size_t bytes() const {
    std::size_t all = 0;
    for (const Tensor& tensor : tensors) all += tensor.content.bytes;
    return all;
  }
};

/// What was packed is not what the receiver expects.
struct PackError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Takes out in the order of packing. PackError where something is missing.
class Unpacker {
 public:
  explicit Unpacker(const Packed& packed) : packed_(packed) {}
  std::int64_t number() { return next(packed_.numbers, numbers_, "a number"); }
  const std::string& text() { return next(packed_.texts, texts_, "a text"); }
  const Packed::Tensor& tensor() { return next(packed_.tensors, tensors_, "a tensor"); }
  /// A number in [0, most].
  std::size_t count(std::size_t most) {
    const std::int64_t value = number();
    if (value < 0 || static_cast<std::uint64_t>(value) > most) throw PackError("a count is out of range");
    return static_cast<std::size_t>(value);
  }
  std::size_t numbers_taken() const { return numbers_; }
  std::size_t tensors_left() const { return packed_.tensors.size() - tensors_; }

 private:
  template <class T>
  const T& next(const std::vector<T>& all, std::size_t& at, const char* what) {
    if (at >= all.size()) throw PackError(std::string(what) + " is missing");
    return all[at++];
  }
  const Packed& packed_;
  std::size_t numbers_ = 0, texts_ = 0, tensors_ = 0;
};

}  // namespace rubato
