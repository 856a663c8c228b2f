#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "rubato/collectives/collectives.h"
#include "rubato/context/packed.h"

namespace rubato {

/// The coordinator's part of a rendezvous: what members have put, and who still asks for what. The caller locks.
class RendezvousBoard {
 public:
  /// Those who have asked for it.
  std::set<int> put(const std::string& key, std::string value);
  /// Nothing: not yet; `rank` is among those whom `put` will name.
  std::optional<std::string> ask(int rank, const std::string& key);
  /// Of groups that will not meet any more.
  void clear();

 private:
  std::map<std::string, std::string> values_;
  std::map<std::string, std::set<int>> asking_;
};

/// A member's part: asks the coordinator, again from time to time, since what is under way may be lost with a connection.
class RendezvousAtCoordinator final : public Rendezvous {
 public:
  /// `send`: a report to the coordinator; never blocks.
  using Send = std::function<void(const char* about, Packed content)>;
  explicit RendezvousAtCoordinator(Send send) : send_(std::move(send)) {}

  void put(const std::string& key, const std::string& value) override;
  std::optional<std::string> get(const std::string& key) override;
  /// The coordinator's answer.
  void came(const std::string& key, std::string value);
  /// Nothing is sent after this.
  void close();

 private:
  void send(const char* about, Packed content);

  std::mutex mutex_;
  std::condition_variable changed_;
  Send send_;
  std::map<std::string, std::string> values_;
};

}  // namespace rubato
