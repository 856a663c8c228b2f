#pragma once

#include <map>

#include "rubato/observe/trace.h"

namespace rubato {

/// What a trace says in numbers. Times in seconds of the runtime's clock.
struct TraceFigures {
  /// Share of their time that roles which compute spend in sending, receiving and summing.
  double waiting_share = 0;
  /// Mean time from the start of a batch's forward pass to the publication of its gradient, per block.
  std::map<int, double> age_seconds;
  double mean_age_seconds = 0;  ///< over all blocks
};

TraceFigures figures_of(const Trace& trace);

}  // namespace rubato
