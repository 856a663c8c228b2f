#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "rubato/context/actor.h"
#include "rubato/context/message.h"
#include "rubato/core/random.h"

namespace rubato {

/// What a role may do to the outside world. A role is a plain blocking function; a runtime implements these verbs, and the same
/// role text runs on threads and in virtual time.
///
/// Owned by the runtime, valid while the role runs, used only on the role's own thread. Any verb may throw `Stopped` after
/// another role has failed; a role lets it pass.
class Context : public Actor {
 public:
  /// Hands `message` over; blocks while the channel is full. Messages carry snapshots, never live tensors.
  virtual void send(const ChannelSpec& channel, std::unique_ptr<Message> message) = 0;
  /// Blocks until a message is there.
  virtual std::unique_ptr<Message> receive(const ChannelSpec& channel) = 0;
  /// Runs `work` at once, for real; in virtual time then lets `seconds` of the device's time pass before it returns. So a role
  /// reads before `compute` and publishes after it. `what` and `batch` say what it is, in figures and traces. Guards (no-grad,
  /// autocast) live inside `work`, never across a blocking verb.
  virtual void compute(Computation what, std::int64_t batch, double seconds, FunctionRef<void()> work) = 0;
  /// Hands in `part` and blocks until every member of `group` has; returns the sum of all parts in order of rank, so that its
  /// bits do not depend on timing. The result is shared and must not be written.
  virtual std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) = 0;
  virtual void sleep(double seconds) = 0;
  /// Seconds since the runtime was made, of real or virtual time.
  virtual double now() const = 0;
  /// A message of `channel` that came from another process cannot be used.
  virtual void refuse(const ChannelSpec&, const PackedMessage&, const std::string& why);
  /// This role's own stream, a function of (seed, name of the role).
  virtual RandomStream& random() = 0;
};

/// Thrown out of a verb when the run is being torn down because another role failed.
struct Stopped {};

/// Thrown by `receive` on a channel that `may_be_lost` when whoever should send has died or cannot be reached. What it was asked
/// for may still come later.
struct PeerLost {};

template <class T>
void send(Context& me, const Channel<T>& channel, T message) {
  me.send(channel, std::make_unique<T>(std::move(message)));
}

template <class T>
concept CrossesProcesses = requires(Unpacker& unpacker) {
  { T::unpack(unpacker) } -> std::same_as<T>;
};

/// A message from another process that does not fit is dropped and reported; it costs its sender a place in the job.
template <class T>
T receive(Context& me, const Channel<T>& channel) {
  for (;;) {
    const std::unique_ptr<Message> message = me.receive(channel);
    auto* packed = dynamic_cast<PackedMessage*>(message.get());
    if (packed == nullptr) return std::move(static_cast<T&>(*message));
    if constexpr (CrossesProcesses<T>) {
      try {
        Unpacker unpacker(packed->content);
        T unpacked = T::unpack(unpacker);
        if (channel.fits && !channel.fits(unpacked)) throw PackError("it does not fit the model");
        return unpacked;
      } catch (const PackError& error) {
        me.refuse(channel, *packed, error.what());
      }
    } else {
      me.refuse(channel, *packed, "no message of this channel crosses processes");
    }
  }
}

/// Nothing where whoever should send is lost.
template <class T>
std::optional<T> receive_unless_lost(Context& me, const Channel<T>& channel) {
  try {
    return receive(me, channel);
  } catch (const PeerLost&) {
    return std::nullopt;
  }
}

}  // namespace rubato
