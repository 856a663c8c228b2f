#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

namespace rubato::membership {

/// Where members of sums leave word for each other, such as their addresses: what has been put, and who still asks for what.
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

}  // namespace rubato::membership
