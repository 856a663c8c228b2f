#pragma once

#include <memory>
#include <string>
#include <utility>

#include "rubato/context/message.h"
#include "rubato/core/actor.h"
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
  /// reads before `compute` and publishes after it. `what` and `batch` name it in traces. Guards (no-grad, autocast) live inside
  /// `work`, never across a blocking verb.
  virtual void compute(const char* what, std::int64_t batch, double seconds, FunctionRef<void()> work) = 0;
  /// Hands in `part` and blocks until every member of `group` has; returns the sum of all parts in order of rank, so that its
  /// bits do not depend on timing. The result is shared and must not be written.
  virtual std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) = 0;
  virtual void sleep(double seconds) = 0;
  /// Seconds since the runtime was made, of real or virtual time.
  virtual double now() const = 0;
  /// This role's own stream, a function of (seed, name of the role).
  virtual RandomStream& random() = 0;
};

/// Thrown out of a verb when the run is being torn down because another role failed.
struct Stopped {};

template <class T>
void send(Context& me, const Channel<T>& channel, T message) {
  me.send(channel, std::make_unique<T>(std::move(message)));
}

template <class T>
T receive(Context& me, const Channel<T>& channel) {
  const std::unique_ptr<Message> message = me.receive(channel);
  return std::move(static_cast<T&>(*message));
}

}  // namespace rubato
