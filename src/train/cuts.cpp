#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "rubato/core/error.h"
#include "rubato/train/cuts.h"

namespace rubato {

// Linear partition by dynamic programming: best[k][n] is the smallest possible cost of the slowest of k stages over the first n
// blocks. Blocks are few, so the cubic loop costs nothing.
std::vector<int> balanced_cuts(const std::vector<BlockCost>& costs, int stages) {
  const int blocks = static_cast<int>(costs.size());
  if (stages > blocks) {
    throw UsageError(fmt::format("--stages {} is more than the {} blocks of the model", stages, blocks));
  }
  std::vector<double> prefix(blocks + 1, 0.0);
  for (int i = 0; i < blocks; ++i) prefix[i + 1] = prefix[i] + costs[i].forward + costs[i].backward + costs[i].update;

  constexpr double inf = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(stages + 1, std::vector<double>(blocks + 1, inf));
  std::vector<std::vector<int>> start(stages + 1, std::vector<int>(blocks + 1, 0));
  best[0][0] = 0;
  for (int k = 1; k <= stages; ++k) {
    for (int n = k; n <= blocks; ++n) {
      for (int cut = k - 1; cut < n; ++cut) {
        const double slowest = std::max(best[k - 1][cut], prefix[n] - prefix[cut]);
        if (slowest < best[k][n]) {
          best[k][n] = slowest;
          start[k][n] = cut;
        }
      }
    }
  }
  std::vector<int> cuts;
  for (int k = stages, end = blocks; k > 1; --k) {
    end = start[k][end];
    cuts.insert(cuts.begin(), end);
  }
  return cuts;
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
