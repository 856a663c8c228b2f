#pragma once

#include <cstdint>
#include <vector>

#include "rubato/model/weight_store.h"
#include "rubato/observe/meter.h"
#include "rubato/runtimes/processes.h"
#include "rubato/transport/transport.h"

namespace rubato {

enum class WorkerPhase { idle, running, finished };

/// What a worker says of itself when it comes (again).
struct WorkerDetails {
  WorkerPhase phase = WorkerPhase::idle;
  std::int64_t segment = 0, step = 0;
  Packed pack() const;
  static WorkerDetails unpack(const Packed& packed);
};

/// What a worker says with every beat.
struct WorkerBeat {
  std::int64_t step = 0, samples = 0;
  double loss = 0;
  WaitCount waited;
  Traffic traffic;
  std::vector<StalenessCount> staleness;  ///< per block
  std::vector<StepReport> steps;          ///< since the last beat
  /// Without the steps, which whoever has them appends.
  Packed pack() const;
  /// PackError
  static WorkerBeat unpack(Unpacker& unpacker);
};

}  // namespace rubato
