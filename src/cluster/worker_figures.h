#pragma once

#include <cstdint>
#include <vector>

#include "rubato/model/weight_store.h"
#include "rubato/observe/meter.h"
#include "rubato/observe/step_tap.h"
#include "rubato/runtimes/processes.h"
#include "rubato/transport/transport.h"

namespace rubato {

/// What a worker says of itself with every beat and at the end of a segment, besides its status.
struct WorkerFigures {
  std::int64_t samples = 0;
  double loss = 0;
  WaitCount waited;
  Traffic traffic;
  std::vector<StalenessCount> staleness;  ///< per block
  TappedSteps steps;                      ///< that the coordinator has not said it has counted
  Packed pack() const;
  /// Takes them out of `packed`, whose first numbers they are. PackError
  static WorkerFigures take(Packed& packed);
};

/// How many steps of which process the coordinator has counted; with its beats, for every worker.
struct CountedSteps {
  struct Of {
    std::int64_t process = 0, steps = 0;
  };
  std::vector<Of> workers;
  Packed pack() const;
  /// PackError
  static CountedSteps unpack(const Packed& packed);
};

}  // namespace rubato
