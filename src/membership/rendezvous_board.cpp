#include "rubato/membership/rendezvous_board.h"

namespace rubato::membership {

std::set<int> RendezvousBoard::put(const std::string& key, std::string value) {
  values_[key] = std::move(value);
  const auto asking = asking_.extract(key);
  return asking ? asking.mapped() : std::set<int>();
}

std::optional<std::string> RendezvousBoard::ask(int rank, const std::string& key) {
  if (const auto found = values_.find(key); found != values_.end()) return found->second;
  asking_[key].insert(rank);
  return std::nullopt;
}

void RendezvousBoard::clear() {
  values_.clear();
  asking_.clear();
}

}  // namespace rubato::membership
