// The smallest model, data set and optimizer of one's own. One weight w and the loss (w - label)^2 / 2: the gradient of a batch
// is w - (mean label), so that whole runs can be computed by hand.
#include "level.h"

#include <torch/optim/adam.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "rubato/extend.h"

namespace {

using namespace rubato;

struct LevelImpl : torch::nn::Cloneable<LevelImpl> {
  explicit LevelImpl(double start) : start(start) { reset(); }
  void reset() override { w = register_parameter("w", torch::full({1}, start, torch::kFloat64)); }
  torch::Tensor forward(const torch::Tensor& input) { return w.expand({input.size(0)}); }
  double start;
  torch::Tensor w;
};
TORCH_MODULE(Level);

Model level(const ZooOptions& options) {
  Model model =
      model_from({{"level", torch::nn::AnyModule(Level(options.values.get<double>("level-start")))}},
                 [](const torch::Tensor& output, const torch::Tensor& target) { return (output - target).square().mean() / 2; });
  model.name = "level";
  return model;
}

/// Black images of one pixel; labels 0, 1, 2, 3, 0, ... with a few larger ones.
Dataset points(std::int64_t count) {
  Dataset data{.name = "points"};
  const torch::Tensor index = torch::arange(count, torch::kInt64);
  data.inputs = torch::zeros({count, 1, 1, 1}, torch::kUInt8);
  data.targets = index % 4 + 10 * index.remainder(7).eq(0).to(torch::kInt64);
  data.classes = 14;
  data.mean = {0};
  data.deviation = {1};
  return data;
}

}  // namespace

void register_level() {
  register_model({.name = "level",
                  .summary = "one weight, loss (w - label)^2 / 2",
                  .make = level,
                  .options = {{.name = "level-start", .usual = 4.0, .help = "level: the weight at first"}}});
  register_dataset({.name = "points",
                    .summary = "black images of one pixel with labels 0 .. 13",
                    .load =
                        [](const std::string&, const DataOptions& options) {
                          const auto count = options.values.get<std::int64_t>("points");
                          return DataSplit{points(count), points(count / 4)};
                        },
                    .options = {{.name = "points", .usual = 64, .help = "points: samples for training", .low = 8}}});
  register_optimizer(
      {.name = "amsgrad",
       .summary = "Adam with the largest second moment so far",
       .make =
           [](const OptimizerOptions& options, std::vector<torch::Tensor> parameters) {
             auto adam = torch::optim::AdamOptions(options.learning_rate.base)
                             .weight_decay(options.weight_decay)
                             .betas(std::make_tuple(0.9, options.values.get<double>("beta2")))
                             .amsgrad(true);
             return std::make_unique<torch::optim::Adam>(std::move(parameters), adam);
           },
       .learning_rate = 0.05,
       .options =
           {{.name = "beta2", .usual = 0.999, .help = "amsgrad: decay of the second moment, below 1", .low = 0, .high = 1}},
       .check =
           [](const OptionValues& values, const RunFacts&) {
             if (!(values.get<double>("beta2") < 1)) throw UsageError("--beta2 1 forgets nothing: give less than 1");
           }});
}
