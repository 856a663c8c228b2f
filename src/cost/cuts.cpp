#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "rubato/core/error.h"
#include "rubato/core/partition.h"
#include "rubato/cost/cuts.h"

namespace rubato {

std::vector<int> balanced_cuts(const std::vector<BlockCost>& costs, int stages) {
  if (stages < 1) throw UsageError(fmt::format("--stages {} must be at least 1", stages));
  if (stages > static_cast<int>(costs.size())) {
    throw UsageError(fmt::format("--stages {} is more than the {} blocks of the model", stages, costs.size()));
  }
  std::vector<double> seconds;
  for (const BlockCost& cost : costs) seconds.push_back(cost.forward + cost.backward + cost.update);
  return linear_partition(seconds, stages);
}

std::vector<int> parse_cuts(const std::string& text, int stages) {
  std::vector<int> cuts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    int cut = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, cut);
    if (error != std::errc() || stop != text.data() + end) {
      throw UsageError(fmt::format("--cuts '{}' is neither auto nor block numbers separated by commas, like 2,4", text));
    }
    cuts.push_back(cut);
    begin = end + 1;
  }
  if (static_cast<int>(cuts.size()) != stages - 1) {
    throw UsageError(fmt::format("--stages {} needs {} cuts, --cuts '{}' has {}", stages, stages - 1, text, cuts.size()));
  }
  return cuts;
}

}  // namespace rubato
