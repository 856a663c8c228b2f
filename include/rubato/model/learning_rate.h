#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rubato {

/// Learning rate as a function of the number of updates that a block has received (its version). Every block follows its own
/// clock, so a delayed block is not ahead of its schedule.
struct LearningRate {
  double base = 0.1;                  ///< > 0
  std::string schedule = "constant";  ///< constant, step, cosine
  double warmup = 0;                  ///< updates of linear warm-up from base / warmup, >= 0; need not be whole
  std::int64_t total = 0;             ///< updates in the whole run; end of the cosine
  double step_every = 0;              ///< "step": updates between two cuts, > 0; need not be whole: an epoch that replicas share
  double step_factor = 0.1;           ///< "step": factor of each cut, in (0, 1]

  /// Rate of update number `version` (0-based).
  double at(std::int64_t version) const;
  /// UsageError for values outside the ranges above.
  void check() const;
  static std::vector<std::string> schedules() { return {"constant", "step", "cosine"}; }
};

}  // namespace rubato
