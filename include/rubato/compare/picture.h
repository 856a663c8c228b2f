#pragma once

#include <filesystem>
#include <vector>

#include "rubato/compare/results.h"

namespace rubato {

/// Draws `picture` into `target` (SVG) with gnuplot. `folder`: where the runs lie, for curves. DataError when gnuplot is missing
/// or does not succeed.
void draw(const Picture& picture, const Experiment& experiment, const std::vector<Result>& results,
          const std::filesystem::path& folder, const std::filesystem::path& target);

}  // namespace rubato
