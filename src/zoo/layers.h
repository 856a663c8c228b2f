#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "rubato/model/dropout.h"
#include "rubato/model/model.h"

namespace rubato::zoo_detail {

template <class Module, class... Args>
Block make_block(std::string name, Args&&... args) {
  return {std::move(name), torch::nn::AnyModule(std::make_shared<Module>(std::forward<Args>(args)...))};
}

/// Without bias: a batch norm follows, or has gone before, that makes one redundant.
torch::nn::Conv2d plain_convolution(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride = 1);

/// Flattens each sample, then linear; hidden layers add ReLU and dropout.
class DenseImpl : public torch::nn::Cloneable<DenseImpl> {
 public:
  enum Kind { hidden, output };
  DenseImpl(std::int64_t in, std::int64_t out, Kind kind, double dropout = 0);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& input);

 private:
  std::int64_t in_, out_;
  Kind kind_;
  double probability_;
  torch::nn::Linear linear_{nullptr};
  Dropout dropout_{nullptr};
};

struct ConvPoolOptions {
  std::int64_t in, out;
  std::int64_t kernel;
  std::int64_t padding = 0;
  bool pool = true;  ///< 2 x 2 maxima with stride 2 after the ReLU
};

/// Convolution with bias, ReLU, pooling.
class ConvPoolImpl : public torch::nn::Cloneable<ConvPoolImpl> {
 public:
  explicit ConvPoolImpl(ConvPoolOptions options);
  void reset() override;
  torch::Tensor forward(const torch::Tensor& input);

 private:
  ConvPoolOptions options_;
  torch::nn::Conv2d conv_{nullptr};
};

}  // namespace rubato::zoo_detail
