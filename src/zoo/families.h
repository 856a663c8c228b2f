#pragma once

#include <vector>

#include "rubato/zoo/zoo.h"

/// One builder per family. `make_model` calls them with checked sizes and with `width` and `dropout` resolved, and
/// draws the initial weights afterwards.
namespace rubato::zoo_detail {

std::vector<Block> mlp(const ZooOptions& options);
std::vector<Block> lenet(const ZooOptions& options);
/// One weight in double precision, 1000 at first; returned for every sample.
std::vector<Block> quadratic(const ZooOptions& options);
std::vector<Block> easgd_cifar(const ZooOptions& options);

/// Depth 6 `blocks_per_stage` + 2.
std::vector<Block> resnet(const ZooOptions& options, int blocks_per_stage);
/// Depth 6 `blocks_per_stage` + 4.
std::vector<Block> wide_resnet(const ZooOptions& options, int blocks_per_stage);

std::vector<Block> lstm_char(const ZooOptions& options);
std::vector<Block> transformer_char(const ZooOptions& options);

}  // namespace rubato::zoo_detail
