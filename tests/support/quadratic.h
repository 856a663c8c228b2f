#pragma once

#include <cmath>
#include <string>

#include "rubato/model/model.h"
#include "support/lab.h"

namespace rubato::test {

/// out = in + h w^2 / 2, so that the gradient of w is h w whatever comes from above, times that.
struct QuadraticImpl : torch::nn::Cloneable<QuadraticImpl> {
  explicit QuadraticImpl(double h) : curvature(h) { reset(); }
  void reset() override { w = register_parameter("w", torch::ones({1}, torch::kFloat64)); }
  torch::Tensor forward(const torch::Tensor& in) { return in.to(torch::kFloat64) + 0.5 * curvature * w * w; }
  double curvature;
  torch::Tensor w;
};
TORCH_MODULE(Quadratic);

/// A chain of them, one per stage, all at w = 1 and h = 1, under the real schedule with plain SGD.
inline Lab quadratic_lab(ScheduleOptions schedule, int stages, double rate) {
  std::vector<Block> blocks;
  for (int i = 0; i < stages; ++i) {
    blocks.push_back({"q" + std::to_string(i), torch::nn::AnyModule(Quadratic(1.0))});
    if (i > 0) schedule.cuts.push_back(i);
  }
  return Lab(model_from(blocks, [](const torch::Tensor& out, const torch::Tensor&) { return out.mean(); }),
             {.schedule = schedule, .store = sgd(rate, 0, 0), .batch_size = 1}, small_images(4, 2));
}

inline double weight_of(const Lab& lab, int block) {
  Bystander me;
  return lab.store.read(me, block).parameters->tensors[0].item<double>();
}

/// |w| of the lowest of `stages` stages after `iterations`.
inline double quadratic_after(const ScheduleOptions& schedule, int stages, double rate, int iterations) {
  Lab lab = quadratic_lab(schedule, stages, rate);
  lab.run_on_threads(iterations);
  return std::abs(weight_of(lab, 0));
}

/// A gradient that is D updates late keeps curvature 1 stable exactly below this rate.
inline double largest_rate(int delay) {
  return 2 * std::sin(std::acos(-1.0) / (2 * (2 * delay + 1)));
}

}  // namespace rubato::test
