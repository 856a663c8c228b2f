#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "rubato/transport/credentials.h"
#include "rubato/transport/frame.h"

namespace rubato {

/// Ranks of processes that are no workers.
inline constexpr int coordinator_rank = -1;

/// How a process introduces itself.
struct Greeting {
  int rank = 0;
  int incarnation = 0;   ///< how often it has been started again
  std::string digest;    ///< of the configuration: equal in all processes of a job
  std::string endpoint;  ///< where it accepts connections
  std::string host;
  std::int64_t pid = 0;
  Packed details;  ///< whatever the listener wants to say
};

/// Told what comes from other processes; every member on the transport's own thread, where it must not block.
class TransportListener {
 public:
  virtual ~TransportListener() = default;
  /// A frame of a peer that belongs to the job.
  virtual void arrived(int peer, Frame frame) = 0;
  /// `greeting` is of this job. Returns why it is turned away all the same; empty: it belongs from now on.
  virtual std::string admit(const Greeting& greeting) = 0;
  /// A process with the job's key wanted to be worker `rank`, but has another configuration.
  virtual void refused(int /*rank*/, const std::string& /*reason*/) {}
  /// The coordinator has answered a hello of this process; its greeting.
  virtual void welcomed(const Greeting& coordinator) = 0;
  /// The coordinator has turned this process away.
  virtual void turned_away(const std::string& reason) = 0;
  /// Nothing has been heard of `peer` for a while; or it is heard again.
  virtual void silent(int peer, bool is_silent) = 0;
  /// What the next hello and the next beat say.
  virtual Packed details() = 0;
  virtual Packed beat() = 0;
};

struct TransportOptions {
  Greeting me;              ///< endpoint is filled in
  std::string bind;         ///< endpoint to accept connections at: "tcp://127.0.0.1:*"
  std::string coordinator;  ///< endpoint of the coordinator; empty: this process is the coordinator
  bool curve = false;       ///< authenticated and encrypted; else the job's token is the password
  bool reconnect = true;    ///< give up connections on which nothing moves, and make new ones
  Credentials credentials;
  FrameLimits limits;
  double beat_seconds = 0.25;
  double silence_seconds = 1.5;
  double latency_seconds = 0;  ///< artificial: each frame is sent that much later
};

struct Traffic {
  std::int64_t sent = 0, received = 0;  ///< bytes of tensors and heads
};

/// Who was turned away, and why.
struct Refusals {
  std::map<std::string, std::int64_t> reasons;
  std::string last;
  std::int64_t count() const;
};

/// The connections of one process to the others of its job, on a thread of its own: one ZeroMQ ROUTER that accepts, one DEALER to
/// each process that it sends to. Everybody knows the coordinator; workers learn from it where others are. Frames between two
/// processes arrive in the order of sending, or are lost with a connection. Members may be called from any thread.
class Transport {
 public:
  /// UsageError when the endpoint cannot be bound.
  Transport(TransportOptions options, TransportListener& listener);
  ~Transport();

  /// Starts to talk: the listener must be ready.
  void start();
  /// Never blocks. What is meant for a process that is not there is dropped.
  void send(int peer, Frame frame);
  /// Where worker `peer` accepts connections; later frames to it go there directly.
  void know(int peer, const std::string& endpoint);
  /// `peer` has sent what nobody can use: nothing more is taken from it.
  void ban(int peer, const std::string& reason);
  /// Waits until what has been sent is on its way, at most so long.
  void flush(double seconds);

  const std::string& endpoint() const;
  Traffic traffic() const;
  Refusals refusals() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace rubato
