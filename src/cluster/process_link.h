#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "rubato/runtimes/processes.h"
#include "rubato/transport/transport.h"

namespace rubato {

/// What the coordinator and the workers of a job have in common: it carries messages of channels between the runtime of this
/// process and the transport, and knows in which process each channel is received.
///
/// A term lasts until the job goes back to an earlier state; what was sent in an earlier one is dropped.
class ProcessLink : public Neighbours, public TransportListener {
 public:
  void send(int peer, const std::string& channel, std::int64_t batch, Packed content) override;
  void taken(int peer, const std::string& channel) override;
  void refuse(int peer, const std::string& channel, const std::string& why) override;

 protected:
  /// Before anything else; both outlive the link's use.
  void attach(Transport& transport, ProcessRuntime& runtime) {
    transport_ = &transport;
    runtime_ = &runtime;
  }
  Transport& transport() { return *transport_; }
  ProcessRuntime& runtime() { return *runtime_; }
  /// Whether `frame` was of a channel and is dealt with.
  bool carry(int peer, Frame& frame);

  std::int64_t term() const { return term_; }
  /// Forgets places and messages. Between segments.
  void begin_term(std::int64_t term);
  void set_term(std::int64_t term) { term_ = term; }

  /// Remembers that `channel` is received in this process; false if that was known.
  bool remember_own(const std::string& channel);
  std::set<std::string> own_channels() const;

 private:
  Transport* transport_ = nullptr;
  ProcessRuntime* runtime_ = nullptr;
  std::atomic<std::int64_t> term_{0};
  mutable std::mutex mutex_;  ///< guards the channels
  std::set<std::string> own_;
};

}  // namespace rubato
