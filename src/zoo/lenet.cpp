#include <cstdint>

#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {

/// LeCun et al. 1998, with ReLU and maxima where LeNet-5 has squashing and trainable averages. Its input is 32 x 32;
/// smaller images get the two pixels of border that 28 x 28 lacks. Default width 6 gives the channels and units of the
/// paper.
std::vector<Block> lenet(const ZooOptions& options) {
  const std::int64_t padding = options.image_size < 32 ? 2 : 0;
  const std::int64_t side = ((options.image_size + 2 * padding - 4) / 2 - 4) / 2;
  const std::int64_t first = options.width, second = options.width * 8 / 3;
  const std::int64_t fifth = options.width * 20, sixth = options.width * 14;
  return {make_block<ConvPoolImpl>("conv1", ConvPoolOptions{options.channels, first, 5, padding}),
          make_block<ConvPoolImpl>("conv2", ConvPoolOptions{first, second, 5}),
          make_block<DenseImpl>("fc1", second * side * side, fifth, DenseImpl::hidden),
          make_block<DenseImpl>("fc2", fifth, sixth, DenseImpl::hidden),
          make_block<DenseImpl>("fc3", sixth, options.classes, DenseImpl::output)};
}

}  // namespace rubato::zoo_detail
