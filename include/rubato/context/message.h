#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace rubato {

/// What travels through a channel. Each protocol has its own types; a type says how large it would be on a wire and which batch
/// it belongs to (-1: none).
class Message {
 public:
  virtual ~Message() = default;
  virtual std::size_t bytes() const = 0;
  virtual std::int64_t batch() const { return -1; }
};

/// A message that can be summed with others of its type.
class Summable : public Message {
 public:
  /// this += other, element by element. `other` is of the same type and shape.
  virtual void add(const Summable& other) = 0;
};

/// Members with ranks 0 .. size - 1 that sum together. Each name is used for one sum at a time; all members name the same size.
struct GroupSpec {
  std::string name;
  int size = 1;
};

/// A named, bounded, first-in first-out queue. Senders block while `capacity` messages wait. Several roles may send and several
/// receive; each message reaches one receiver. Both ends name the same channel; the runtime makes it at first use.
struct ChannelSpec {
  std::string name;
  std::size_t capacity = 1;
};

/// A channel that carries one type of message, which gives `send` and `receive` below their types.
template <class T>
struct Channel : ChannelSpec {};

}  // namespace rubato
