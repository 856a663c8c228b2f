#pragma once

#include <cstdint>

#include "rubato/data/dataset.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"

namespace rubato {

struct Evaluation {
  double accuracy = 0;  ///< percent of predictions equal to the target
  double loss = 0;      ///< mean over samples
};

/// Runs the newest published weights of `store` over all of `data` in evaluation mode, with as many intra-op threads as there are
/// processors. Not during a run.
Evaluation evaluate(const Model& model, const WeightStore& store, const Dataset& data, const StageOptions& options,
                    std::int64_t batch_size = 500);

}  // namespace rubato
