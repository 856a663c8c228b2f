#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "rubato/context/packed.h"

namespace rubato {

/// What travels through a channel. Each protocol has its own types; a type says how large it would be on a wire and which batch
/// it belongs to (-1: none).
class Message {
 public:
  virtual ~Message() = default;
  virtual std::size_t bytes() const = 0;
  virtual std::int64_t batch() const { return -1; }
  /// What goes into another process; its type T has `static T unpack(Unpacker&)` then. std::logic_error: stays in this one.
  virtual Packed pack() const;
};

/// A message as it came from another process. The typed `receive` unpacks it.
struct PackedMessage final : Message {
  Packed content;
  std::int64_t of_batch = -1;
  int peer = 0;  ///< the process that sent it
  std::size_t bytes() const override { return content.bytes(); }
  std::int64_t batch() const override { return of_batch; }
};

/// A message that can be summed with others of its type.
class Summable : public Message {
 public:
  /// this += other, element by element. `other` is of the same type and shape.
  virtual void add(const Summable& other) = 0;
  /// How many parts are in it. Less than the group's size where members have died.
  int parts() const { return parts_; }
  void set_parts(int parts) { parts_ = parts; }

 private:
  int parts_ = 1;
};

/// Members with ranks 0 .. size - 1 that sum together. Each name is used for one sum at a time, except where sums have numbers:
/// then several, with different numbers, may be under way. All members name the same size.
struct GroupSpec {
  std::string name;
  int size = 1;
  std::int64_t number = -1;  ///< of the sum, 0, 1, 2, ...; those under way lie less than 16 apart; -1: one after the other
  /// Of this sum: name and number.
  std::string key() const { return number < 0 ? name : name + "/" + std::to_string(number); }
};

/// A named, bounded, first-in first-out queue. Senders block while `capacity` messages wait. Several roles may send and several
/// receive; each message reaches one receiver. Both ends name the same channel; the runtime makes it at first use.
struct ChannelSpec {
  std::string name;
  std::size_t capacity = 1;
  /// Whether messages come from a process without which the receiver can go on: `receive` may then throw PeerLost.
  bool may_be_lost = false;
};

/// A channel that carries one type of message, which gives `send` and `receive` below their types.
template <class T>
struct Channel : ChannelSpec {
  /// Whether a message that came from another process can be used; none: every one that can be unpacked.
  std::function<bool(const T&)> fits = {};
};

}  // namespace rubato
