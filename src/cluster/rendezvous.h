#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "rubato/collectives/collectives.h"
#include "rubato/membership/messages.h"

namespace rubato {

/// A member's part of a rendezvous that the coordinator keeps: asks it, again from time to time, since what is under way may be
/// lost with a connection.
class RendezvousAtCoordinator final : public Rendezvous {
 public:
  /// `send`: a report to the coordinator; never blocks.
  using Send = std::function<void(const membership::Message& message)>;
  explicit RendezvousAtCoordinator(Send send) : send_(std::move(send)) {}

  void put(const std::string& key, const std::string& value) override;
  std::optional<std::string> get(const std::string& key) override;
  /// The coordinator's answer.
  void came(const membership::Found& found);
  /// Nothing is sent after this.
  void close();

 private:
  void send(const membership::Message& message);

  std::mutex mutex_;
  std::condition_variable changed_;
  Send send_;
  std::map<std::string, std::string> values_;
};

}  // namespace rubato
