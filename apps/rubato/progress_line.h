#pragma once

#include <chrono>
#include <cstdint>
#include <thread>

#include "rubato/train/trainer.h"

namespace rubato::app {

/// One line on standard error, rewritten twice a second while training runs: step, loss, rate, time left. Only on a terminal.
class ProgressLine {
 public:
  ProgressLine(const Trainer& trainer, bool wanted);
  ~ProgressLine();
  /// Clears the line, so that something else can be printed.
  static void clear();

 private:
  void draw(const Trainer& trainer, double seconds) const;
  // Of the thread alone.
  std::chrono::steady_clock::time_point last_look_;
  std::chrono::steady_clock::duration training_{};  ///< tests left out
  std::int64_t last_steps_ = 0;
  std::jthread thread_;
};

}  // namespace rubato::app
