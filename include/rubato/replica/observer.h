#pragma once

#include <cstdint>

namespace rubato {

/// A batch that has been through the loss.
struct StepReport {
  std::int64_t batch = 0, samples = 0, correct = 0, predictions = 0;
  double loss = 0;
  double time = 0;  ///< of the runtime's clock
};

/// Told of every batch, from whichever role computed its loss. Thread-safe.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  /// Throws DivergedError when the loss is not finite, which ends the run.
  virtual void step(const StepReport& report) = 0;
};

/// Seconds that one block of one batch takes on a device of speed 1. Only virtual time reads them.
struct BlockCost {
  double forward = 0, backward = 0, update = 0;
};

/// The same of what belongs to no block.
struct WorkCosts {
  double loss = 0;           ///< the loss of a batch and its gradient
  double per_operation = 0;  ///< a floating-point operation of what is counted: gradient models, shrinking of gradients
};

}  // namespace rubato
