#include "rubato/core/partition.h"

#include <algorithm>
#include <limits>

namespace rubato {

// Dynamic programming: best[k][n] is the smallest possible weight of the heaviest of k ranges over the first n items. Items are
// few, so the cubic loop costs nothing.
std::vector<int> linear_partition(const std::vector<double>& weights, int parts) {
  const int items = static_cast<int>(weights.size());
  std::vector<double> prefix(items + 1, 0.0);
  for (int i = 0; i < items; ++i) prefix[i + 1] = prefix[i] + weights[i];

  constexpr double inf = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(parts + 1, std::vector<double>(items + 1, inf));
  std::vector<std::vector<int>> start(parts + 1, std::vector<int>(items + 1, 0));
  best[0][0] = 0;
  for (int k = 1; k <= parts; ++k) {
    for (int n = k; n <= items; ++n) {
      for (int cut = k - 1; cut < n; ++cut) {
        const double heaviest = std::max(best[k - 1][cut], prefix[n] - prefix[cut]);
        if (heaviest < best[k][n]) {
          best[k][n] = heaviest;
          start[k][n] = cut;
        }
      }
    }
  }
  std::vector<int> cuts;
  for (int k = parts, end = items; k > 1; --k) {
    end = start[k][end];
    cuts.insert(cuts.begin(), end);
  }
  return cuts;
}

}  // namespace rubato
