#include "rubato/model/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "rubato/core/error.h"

namespace rubato {

double LearningRate::at(std::int64_t version) const {
  if (version < warmup) return base * static_cast<double>(version + 1) / static_cast<double>(warmup);
  if (schedule == "step") return base * std::pow(step_factor, static_cast<double>(version / step_every));
  if (schedule == "cosine" && total > warmup) {
    const double progress = static_cast<double>(version - warmup) / static_cast<double>(total - warmup);
    return 0.5 * base * (1 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
  }
  return base;
}

void LearningRate::check() const {
  const auto known = schedules();
  if (std::find(known.begin(), known.end(), schedule) == known.end()) {
    throw unknown_name("learning-rate schedule", schedule, known);
  }
  if (!(base > 0) || !std::isfinite(base)) {
    throw UsageError("learning rate " + std::to_string(base) + " must be a finite number above 0");
  }
  if (schedule == "step" && step_every <= 0) {
    throw UsageError("--lr-schedule step needs --lr-step-epochs above 0");
  }
  if (!(step_factor > 0 && step_factor <= 1)) {
    throw UsageError("--lr-step-factor " + std::to_string(step_factor) + " must be in (0, 1]");
  }
}

}  // namespace rubato
