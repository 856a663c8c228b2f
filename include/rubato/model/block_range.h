#pragma once

namespace rubato {

/// Blocks [first, last) of a model: what one role of a schedule steps together.
struct BlockRange {
  int first = 0, last = 0;
  bool operator==(const BlockRange&) const = default;
};

}  // namespace rubato
