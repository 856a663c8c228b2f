#pragma once

#include <vector>

namespace rubato {

/// Cuts `weights` (>= 0) into `parts` contiguous ranges, none empty, so that the heaviest is as light as possible. Returns the
/// first index of the second, third, ... range. 1 <= parts <= weights.size().
std::vector<int> linear_partition(const std::vector<double>& weights, int parts);

}  // namespace rubato
