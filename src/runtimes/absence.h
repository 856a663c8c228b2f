#pragma once

#include <algorithm>
#include <chrono>
#include <mutex>

namespace rubato {

/// Whether the process that others can do without is away, and how long to wait for what was asked of it. Thread-safe.
///
/// A question may have been lost with a connection, and nobody tells. Nor does anybody say how long an answer takes: a large
/// model on a slow link may need minutes. So the longest wait grows: twice as long after each that was in vain, and at least four
/// times as long as the longest that was not.
class AwayWatch {
 public:
  using Clock = std::chrono::steady_clock;
  /// `patience`: seconds that somebody waits who asks again soon after an absence; the longest wait at first is 20 times that.
  explicit AwayWatch(double patience) : patience_(patience), longest_(20 * patience) {}

  void set_away(bool away, Clock::time_point now = Clock::now()) {
    const std::lock_guard lock(mutex_);
    away_ = away;
    changed_ = now;
    ever_ = ever_ || away;
  }
  /// Whether somebody who has waited since `begin` should go on without an answer; he then does.
  bool in_vain(Clock::time_point begin, Clock::time_point now = Clock::now()) {
    const std::lock_guard lock(mutex_);
    if (away_) return true;
    const double waited = std::chrono::duration<double>(now - begin).count();
    if (waited > longest_) {
      longest_ *= 2;
      return true;
    }
    const double soon = std::max(patience_, 4 * answered_);
    return ever_ && now - changed_ < std::chrono::minutes(1) && waited > soon;
  }
  /// An answer has come to somebody who has waited since `begin`.
  void answered(Clock::time_point begin, Clock::time_point now = Clock::now()) {
    const std::lock_guard lock(mutex_);
    answered_ = std::max(answered_, std::chrono::duration<double>(now - begin).count());
    longest_ = std::max(longest_, 4 * answered_);
  }

 private:
  const double patience_;
  std::mutex mutex_;
  double longest_, answered_ = 0;  ///< seconds: longest wait that is allowed, and that had an answer
  bool away_ = false, ever_ = false;
  Clock::time_point changed_;
};

}  // namespace rubato
