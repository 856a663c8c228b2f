#pragma once

#include <chrono>
#include <mutex>
#include <optional>

namespace rubato {

/// Adds up the time between `start` and `stop`. Thread-safe.
class TrainingClock {
 public:
  /// Goes on; nothing where it runs already.
  void start() {
    const std::lock_guard lock(mutex_);
    if (!since_) since_ = Clock::now();
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    if (since_) sum_ += Clock::now() - *since_;
    since_.reset();
  }
  double seconds() const {
    const std::lock_guard lock(mutex_);
    return std::chrono::duration<double>(since_ ? sum_ + (Clock::now() - *since_) : sum_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  mutable std::mutex mutex_;
  Clock::duration sum_{};
  std::optional<Clock::time_point> since_;
};

}  // namespace rubato
