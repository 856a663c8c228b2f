#include "rubato/replica/hooks.h"

#include <cstdint>

namespace rubato {

void ReplicaHooks::step_begins(Context&, WeightStore&, BlockRange, const std::vector<Snapshot>&, std::int64_t) {}

void ReplicaHooks::gradient_ready(Context& me, WeightStore& store, BlockGradient gradient) {
  store.apply(me, gradient.block, std::move(gradient.gradients), gradient.clock_read, gradient.batch);
}

void ReplicaHooks::step_ends(Context&, WeightStore&, BlockRange, std::int64_t) {}

ReplicaHooks& no_hooks() {
  static ReplicaHooks none;
  return none;
}

}  // namespace rubato
