#include "rubato/replica/tie.h"

#include <cstdint>

namespace rubato {

void Tie::step_begins(Context&, WeightStore&, BlockRange, const std::vector<Snapshot>&, std::int64_t) {}

void Tie::gradient_ready(Context& me, WeightStore& store, BlockGradient gradient) {
  store.apply(me, gradient.block, std::move(gradient.gradients), gradient.clock_read, gradient.batch);
}

void Tie::step_ends(Context&, WeightStore&, BlockRange, std::int64_t) {}

Tie& untied() {
  static Tie none;
  return none;
}

}  // namespace rubato
