#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "rubato/context/packed.h"
#include "rubato/observe/meter.h"

namespace rubato {

/// Steps `first`, `first` + 1, ... of a worker's process.
struct TappedSteps {
  std::int64_t first = 0;
  std::vector<StepReport> steps;
};

/// Watches the steps of a worker and keeps them until its coordinator, which writes the metrics of the whole job, has counted
/// them: what is lost on the way is sent again, and counts once. Thread-safe.
class StepTap final : public StepObserver {
 public:
  void step(const StepReport& report) override;
  MeterReading reading() const { return meter_.reading(); }
  /// Those that are not counted yet, the oldest first; at most as many as one message may hold.
  TappedSteps pending() const;
  /// The first `steps` of this process are counted.
  void counted(std::int64_t steps);

 private:
  StepMeter meter_;
  mutable std::mutex mutex_;
  std::int64_t first_ = 0;
  std::deque<StepReport> pending_;
};

void pack(Packed& packed, const TappedSteps& steps);
/// PackError
TappedSteps unpack_steps(Unpacker& unpacker);

}  // namespace rubato
