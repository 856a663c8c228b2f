#include "rubato/model/learning_rate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "rubato/core/error.h"

namespace rubato {

double LearningRate::at(std::int64_t version) const {
  const auto updates = static_cast<double>(version);
  const double warm = updates < warmup ? std::min(1.0, (updates + 1) / warmup) : 1;
  constexpr double rounding = 1e-9;  // of an update: 0.1 epochs of 130 batches are 13
  if (schedule == "step") return base * warm * std::pow(step_factor, std::floor(updates / step_every + rounding));
  if (updates < warmup) return base * warm;
  if (schedule == "cosine" && static_cast<double>(total) > warmup) {
    const double progress = (updates - warmup) / (static_cast<double>(total) - warmup);
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
    throw UsageError("learning rate " + fmt::format("{}", base) + " must be a finite number above 0");
  }
  if (schedule == "step" && !(step_every > 0)) {
    throw UsageError("--lr-schedule step needs --lr-step-epochs above 0");
  }
  if (!(step_factor > 0 && step_factor <= 1)) {
    throw UsageError("--lr-step-factor " + fmt::format("{}", step_factor) + " must be in (0, 1]");
  }
}

}  // namespace rubato
