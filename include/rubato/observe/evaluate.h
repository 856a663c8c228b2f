#pragma once

#include <cstdint>
#include <optional>

#include "rubato/data/dataset.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"

namespace rubato {

struct Evaluation {
  std::optional<double> accuracy;  ///< percent of predictions that are right; nothing: the model's task has none
  double loss = 0;                 ///< mean over samples
};

/// Runs the newest published weights of `store` over all of `data` in evaluation mode, with as many intra-op threads as there are
/// processors. Not during a run.
Evaluation evaluate(const Model& model, const WeightStore& store, const Dataset& data, const StageOptions& options,
                    std::int64_t batch_size = 500);

}  // namespace rubato
