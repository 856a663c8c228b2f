#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "rubato/context/runtime.h"
#include "rubato/runtimes/options.h"

namespace rubato {

/// The other processes of a job, as the runtime of one of them sees them. Thread-safe. Nothing but `all_reduce` blocks.
class Neighbours {
 public:
  virtual ~Neighbours() = default;
  /// `channel` is received here: whoever sends to it needs to know.
  virtual void listens(const std::string& channel) = 0;
  /// Takes a message of `channel` to process `peer`.
  virtual void send(int peer, const std::string& channel, std::int64_t batch, Packed content) = 0;
  /// A message that came from `peer` has been taken out of `channel`.
  virtual void taken(int peer, const std::string& channel) = 0;
  /// `peer` has sent what nobody can use.
  virtual void refuse(int peer, const std::string& channel, const std::string& why) = 0;
  /// As Context::all_reduce. Throws Stopped once the runtime has been interrupted.
  virtual std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) = 0;
};

/// How long roles of this process have waited for other processes.
struct WaitCount {
  double seconds = 0, longest = 0;
  std::int64_t waits = 0, in_vain = 0;  ///< how often, and how often without an answer (PeerLost)
};

/// Roles on threads of one of several processes. A channel is found where it is received: messages wait with their sender until
/// somebody anywhere has begun to receive. Members beside `run` may be called from any thread.
class ProcessRuntime : public Runtime {
 public:
  /// A message of `channel` has come from `peer`.
  virtual void deliver(int peer, const std::string& channel, std::int64_t batch, Packed content) = 0;
  /// `channel` is received in process `peer`.
  virtual void located(const std::string& channel, int peer) = 0;
  /// What was sent to `channel` has been taken out there.
  virtual void taken(const std::string& channel) = 0;
  /// `peer` is gone, or cannot be reached: what is sent to it from now on is dropped, until it is `located` again.
  virtual void lost(int peer) = 0;
  /// A new process has taken the place of `peer`: what is sent to it waits until its channels are `located`.
  virtual void expect(int peer) = 0;
  /// Whether those who can go on without their peer (`ChannelSpec::may_be_lost`) have to.
  virtual void set_away(bool away) = 0;
  /// Ends the segment: every role gets Stopped. `run` then returns.
  virtual void interrupt() = 0;
  /// Forgets messages and places, between segments.
  virtual void clear() = 0;
  virtual WaitCount waited() const = 0;
};

/// `neighbours` outlives the runtime. `patience`: seconds that roles wait for a peer which has been away within the last minute.
std::unique_ptr<ProcessRuntime> make_process_runtime(const RuntimeOptions& options, Neighbours& neighbours,
                                                     double patience = 1.5);

}  // namespace rubato
