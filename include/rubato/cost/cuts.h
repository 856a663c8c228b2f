#pragma once

#include <string>
#include <vector>

#include "rubato/replica/observer.h"

namespace rubato {

/// First block of each further stage, such that the slowest of `stages` contiguous stages is as fast as possible.
/// UsageError if there are fewer blocks than stages.
std::vector<int> balanced_cuts(const std::vector<BlockCost>& costs, int stages);

/// "2,4" -> {2, 4}; UsageError unless it names stages - 1 numbers.
std::vector<int> parse_cuts(const std::string& text, int stages);

}  // namespace rubato
