#include <cstdint>

#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {

/// The CIFAR network of "Deep learning with Elastic Averaging SGD" (Zhang, Choromanska, LeCun 2015, section 5), made
/// for crops of 28 x 28: (3,28) - (64,24) - (64,12) - (128,8) - (128,4) - (64,2) - dropout (256) - softmax (10).
std::vector<Block> easgd_cifar(const ZooOptions& options) {
  const std::int64_t width = options.width;
  const std::int64_t side = ((options.image_size - 4) / 2 - 4) / 2 - 2;
  return {make_block<ConvPoolImpl>("conv1", ConvPoolOptions{.in = options.channels, .out = width, .kernel = 5}),
          make_block<ConvPoolImpl>("conv2", ConvPoolOptions{.in = width, .out = 2 * width, .kernel = 5}),
          make_block<ConvPoolImpl>("conv3", ConvPoolOptions{.in = 2 * width, .out = width, .kernel = 3, .pool = false}),
          make_block<DenseImpl>("fc1", width * side * side, 4 * width, DenseImpl::hidden, options.dropout),
          make_block<DenseImpl>("fc2", 4 * width, options.classes, DenseImpl::output)};
}

}  // namespace rubato::zoo_detail
