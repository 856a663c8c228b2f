#pragma once

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
  static void draw(const Trainer& trainer);
  std::jthread thread_;
};

}  // namespace rubato::app
