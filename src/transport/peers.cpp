#include "transport/peers.h"

namespace rubato {
namespace {

constexpr std::size_t most_banned = 10000;

}  // namespace

Packed pack_greeting(const Greeting& greeting) {
  Packed packed = greeting.details;
  packed.numbers.insert(packed.numbers.begin(), {greeting.rank, greeting.incarnation, greeting.pid});
  packed.texts.insert(packed.texts.begin(), {greeting.digest, greeting.endpoint, greeting.host});
  return packed;
}

Greeting unpack_greeting(const Packed& packed) {
  Unpacker unpacker(packed);
  Greeting greeting;
  greeting.rank = static_cast<int>(unpacker.number());
  greeting.incarnation = static_cast<int>(unpacker.number());
  greeting.pid = unpacker.number();
  greeting.digest = unpacker.text();
  greeting.endpoint = unpacker.text();
  greeting.host = unpacker.text();
  greeting.details.numbers.assign(packed.numbers.begin() + 3, packed.numbers.end());
  greeting.details.texts.assign(packed.texts.begin() + 3, packed.texts.end());
  greeting.details.tensors = packed.tensors;
  return greeting;
}

std::optional<int> Peers::rank_of(const std::string& identity) const {
  const auto found = ranks_.find(identity);
  return found == ranks_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* Peers::identity_of(int rank) const {
  const auto found = peers_.find(rank);
  return found == peers_.end() ? nullptr : &found->second.identity;
}

void Peers::admit(const std::string& identity, int rank) {
  if (const auto before = peers_.find(rank); before != peers_.end()) ranks_.erase(before->second.identity);
  ranks_[identity] = rank;
  peers_[rank] = {identity, Clock::now()};
}

void Peers::ban(const std::string& identity) {
  if (banned_.size() >= most_banned) banned_.clear();  // connections cost whoever makes them more than forgetting costs us
  banned_.insert(identity);
}

void Peers::ban(int rank) {
  const auto found = peers_.find(rank);
  if (found == peers_.end()) return;
  ban(found->second.identity);
  ranks_.erase(found->second.identity);
  peers_.erase(found);
}

bool Peers::heard(int rank) {
  Peer& peer = peers_[rank];
  peer.heard = Clock::now();
  return std::exchange(peer.silent, false);
}

std::vector<int> Peers::fallen_silent(double seconds) {
  std::vector<int> fallen;
  const Clock::time_point now = Clock::now();
  for (auto& [rank, peer] : peers_) {
    if (peer.silent || now - peer.heard < std::chrono::duration<double>(seconds)) continue;
    peer.silent = true;
    fallen.push_back(rank);
  }
  return fallen;
}

std::vector<int> Peers::ranks() const {
  std::vector<int> ranks;
  for (const auto& [rank, peer] : peers_) ranks.push_back(rank);
  return ranks;
}

}  // namespace rubato
