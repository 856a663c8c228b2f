#include "zoo/layers.h"

#include <cstdint>

namespace rubato::zoo_detail {

torch::nn::Conv2d plain_convolution(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride) {
  return torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

DenseImpl::DenseImpl(std::int64_t in, std::int64_t out, Kind kind, double dropout)
    : in_(in), out_(out), kind_(kind), probability_(dropout) {
  reset();
}

void DenseImpl::reset() {
  linear_ = register_module("linear", torch::nn::Linear(in_, out_));
  dropout_ = register_module("dropout", Dropout(probability_));
}

torch::Tensor DenseImpl::forward(const torch::Tensor& input) {
  const torch::Tensor sums = linear_(input.flatten(1));
  return kind_ == output ? sums : dropout_(torch::relu(sums));
}

ConvPoolImpl::ConvPoolImpl(ConvPoolOptions options) : options_(options) {
  reset();
}

void ConvPoolImpl::reset() {
  const auto options = torch::nn::Conv2dOptions(options_.in, options_.out, options_.kernel).padding(options_.padding);
  conv_ = register_module("conv", torch::nn::Conv2d(options));
}

torch::Tensor ConvPoolImpl::forward(const torch::Tensor& input) {
  const torch::Tensor features = torch::relu(conv_(input));
  return options_.pool ? torch::max_pool2d(features, 2) : features;
}

}  // namespace rubato::zoo_detail
