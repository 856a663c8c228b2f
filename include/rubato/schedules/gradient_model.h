#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "rubato/tensor/tensor.h"

namespace rubato {

/// What a stage hands to the stage above it: one batch at one cut of the model. Tensors without history.
struct AtCut {
  std::int64_t batch = -1;
  torch::Tensor activation, target;
};

/// Predicts the gradient of the loss with respect to an activation before the stages above have seen it (dni). Belongs to one
/// role; called inside `Context::compute` only.
class GradientModel {
 public:
  virtual ~GradientModel() = default;
  /// Shaped like the activation.
  virtual torch::Tensor predict(const AtCut& at) = 0;
  /// Learns that `gradient` came back from above for `at`. Called once per batch, in order.
  virtual void learn(const AtCut& at, const torch::Tensor& gradient) = 0;
  /// Floating-point operations of one call.
  struct Operations {
    double predict = 0, learn = 0;
  };
  /// For an activation of this shape, whose content is not read. What takes virtual time; by default nothing does.
  virtual Operations operations(const torch::Tensor& /*activation*/) const { return {}; }
  virtual void save(torch::serialize::OutputArchive&) const {}
  virtual void load(torch::serialize::InputArchive&) {}
};

struct GradientModelOptions {
  int layers = 2;               ///< hidden layers with ReLU, >= 0; 0: a linear model
  int width = 256;              ///< units of a hidden layer, >= 1; between images as many channels as the activation has
  double learning_rate = 1e-3;  ///< of its own Adam, >= 0
  bool labels = false;          ///< cDNI: sees the labels too
  std::int64_t classes = 0;     ///< labels: how many there are
};

/// Of the cut below stage `cut` + 1, counted from 0.
using MakeGradientModel = std::function<std::unique_ptr<GradientModel>(int cut)>;

/// The synthetic gradient of Jaderberg et al. 2017: a small network whose last layer starts at zero. Takes its shape from the
/// first activation: convolutions for N x C x H x W, else linear layers over the last dimension. Its initial weights depend on
/// (seed, cut) alone.
std::unique_ptr<GradientModel> make_synthetic_gradient(const GradientModelOptions& options, std::uint64_t seed, int cut);

}  // namespace rubato
