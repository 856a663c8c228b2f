#pragma once

#include <chrono>
#include <mutex>

namespace rubato {

/// Whether the process that others can do without is away, and how long to wait for what was asked of it. Thread-safe.
class AwayWatch {
 public:
  using Clock = std::chrono::steady_clock;
  explicit AwayWatch(double patience) : patience_(patience) {}

  void set_away(bool away) {
    const std::lock_guard lock(mutex_);
    away_ = away;
    changed_ = Clock::now();
    ever_ = ever_ || away;
  }
  /// Whether somebody who has waited since `begin` should go on without an answer. A question may have been lost with whoever it
  /// was put to, and nobody tells: so those who ask again soon after an absence have limited patience.
  bool in_vain(Clock::time_point begin) const {
    const std::lock_guard lock(mutex_);
    if (away_) return true;
    const Clock::time_point now = Clock::now();
    const std::chrono::duration<double> waited = now - begin;
    if (waited.count() > 20 * patience_) return true;  // whatever has become of the answer
    return ever_ && now - changed_ < std::chrono::minutes(1) && waited.count() > patience_;
  }

 private:
  const double patience_;
  mutable std::mutex mutex_;
  bool away_ = false, ever_ = false;
  Clock::time_point changed_;
};

}  // namespace rubato
