#include <cstdint>

#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {

std::vector<Block> mlp(const ZooOptions& options) {
  const std::int64_t pixels = options.channels * options.image_size * options.image_size;
  const std::int64_t width = options.width;
  return {make_block<DenseImpl>("fc1", pixels, width, DenseImpl::hidden, options.dropout),
          make_block<DenseImpl>("fc2", width, width, DenseImpl::hidden, options.dropout),
          make_block<DenseImpl>("fc3", width, options.classes, DenseImpl::output)};
}

}  // namespace rubato::zoo_detail
