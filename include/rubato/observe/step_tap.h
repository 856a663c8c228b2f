#pragma once

#include <mutex>
#include <vector>

#include "rubato/context/packed.h"
#include "rubato/observe/meter.h"

namespace rubato {

/// Watches the steps of a worker and keeps them for the coordinator, which writes the metrics of the whole job. Thread-safe.
class StepTap final : public StepObserver {
 public:
  void step(const StepReport& report) override;
  MeterReading reading() const { return meter_.reading(); }
  /// Appends the steps since the last call to `packed`.
  void drain(Packed& packed);

 private:
  StepMeter meter_;
  std::mutex mutex_;
  std::vector<StepReport> pending_;
};

/// The steps that `drain` has appended. PackError
std::vector<StepReport> unpack_steps(Unpacker& unpacker);

}  // namespace rubato
