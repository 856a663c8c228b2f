#pragma once

#include <vector>

#include "rubato/tensor/tensor.h"

namespace rubato {

/// The elastic force between a replica x and the centre c, alpha (x - c) (Zhang, Choromanska, LeCun 2015, eq. 5 and 6), into
/// `force`. The replica moves by minus the force and the centre by plus the force, so the sum of all replicas and the centre does
/// not change. `x`, `c`, `force`: tensors of the same shapes; `alpha`: moving rate, in [0, 1].
inline void elastic_force(const std::vector<torch::Tensor>& x, const std::vector<torch::Tensor>& c, double alpha,
                          std::vector<torch::Tensor>& force) {
  for (std::size_t i = 0; i < x.size(); ++i) torch::sub_out(force[i], x[i], c[i]).mul_(alpha);
}

}  // namespace rubato
