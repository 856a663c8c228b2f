#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "rubato/transport/transport.h"

namespace rubato {

Packed pack_greeting(const Greeting& greeting);
/// PackError
Greeting unpack_greeting(const Packed& packed);

/// Who has shown that it belongs to the job, by the name of its connection, and when it was last heard. One thread's.
class Peers {
 public:
  using Clock = std::chrono::steady_clock;

  /// Whose connection `identity` is; nothing: a stranger's.
  std::optional<int> rank_of(const std::string& identity) const;
  bool is_banned(const std::string& identity) const { return banned_.contains(identity); }
  /// The connection through which to reach `rank`; null: none.
  const std::string* identity_of(int rank) const;

  void admit(const std::string& identity, int rank);
  void ban(int rank);
  void ban(const std::string& identity);
  /// Returns whether it had been silent.
  bool heard(int rank);
  /// Those who have been silent for `seconds` since the last look that told of them.
  std::vector<int> fallen_silent(double seconds);
  std::vector<int> ranks() const;

 private:
  struct Peer {
    std::string identity;
    Clock::time_point heard;
    bool silent = false;
  };
  std::map<std::string, int> ranks_;
  std::map<int, Peer> peers_;
  std::set<std::string> banned_;
};

}  // namespace rubato
