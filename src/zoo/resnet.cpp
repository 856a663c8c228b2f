#include <cstdint>

#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {
namespace {

class StemImpl : public torch::nn::Cloneable<StemImpl> {
 public:
  StemImpl(std::int64_t in, std::int64_t out) : in_(in), out_(out) { reset(); }
  void reset() override {
    conv_ = register_module("conv", plain_convolution(in_, out_, 3));
    norm_ = register_module("norm", torch::nn::BatchNorm2d(out_));
  }
  torch::Tensor forward(const torch::Tensor& input) { return torch::relu(norm_(conv_(input))); }

 private:
  std::int64_t in_, out_;
  torch::nn::Conv2d conv_{nullptr};
  torch::nn::BatchNorm2d norm_{nullptr};
};

/// y = relu(F(x) + shortcut(x)), F two 3 x 3 convolutions. Where the shape changes, the shortcut is option A of the
/// paper: every second pixel, then channels of zeros; it has no parameters.
class ResidualImpl : public torch::nn::Cloneable<ResidualImpl> {
 public:
  ResidualImpl(std::int64_t in, std::int64_t out, std::int64_t stride) : in_(in), out_(out), stride_(stride) { reset(); }
  void reset() override {
    conv1_ = register_module("conv1", plain_convolution(in_, out_, 3, stride_));
    norm1_ = register_module("norm1", torch::nn::BatchNorm2d(out_));
    conv2_ = register_module("conv2", plain_convolution(out_, out_, 3));
    norm2_ = register_module("norm2", torch::nn::BatchNorm2d(out_));
  }
  torch::Tensor forward(const torch::Tensor& input) {
    const torch::Tensor hidden = torch::relu(norm1_(conv1_(input)));
    return torch::relu(norm2_(conv2_(hidden)) + shortcut(input));
  }

 private:
  torch::Tensor shortcut(const torch::Tensor& input) const {
    if (stride_ == 1 && in_ == out_) return input;
    const torch::Tensor subsampled = input.slice(2, 0, torch::nullopt, stride_).slice(3, 0, torch::nullopt, stride_);
    return torch::constant_pad_nd(subsampled, {0, 0, 0, 0, 0, out_ - in_});
  }

  std::int64_t in_, out_, stride_;
  torch::nn::Conv2d conv1_{nullptr}, conv2_{nullptr};
  torch::nn::BatchNorm2d norm1_{nullptr}, norm2_{nullptr};
};

class PooledLinearImpl : public torch::nn::Cloneable<PooledLinearImpl> {
 public:
  PooledLinearImpl(std::int64_t in, std::int64_t out) : in_(in), out_(out) { reset(); }
  void reset() override { linear_ = register_module("linear", torch::nn::Linear(in_, out_)); }
  torch::Tensor forward(const torch::Tensor& input) { return linear_(input.mean({2, 3})); }

 private:
  std::int64_t in_, out_;
  torch::nn::Linear linear_{nullptr};
};

}  // namespace

/// The CIFAR networks of "Deep residual learning for image recognition" (He et al. 2015, section 4.2).
std::vector<Block> resnet(const ZooOptions& options, int blocks_per_stage) {
  std::int64_t channels = options.width;
  std::vector<Block> blocks{make_block<StemImpl>("stem", options.channels, channels)};
  for (int stage = 0; stage < 3; ++stage) {
    const std::int64_t out = options.width << stage;
    for (int i = 0; i < blocks_per_stage; ++i) {
      const std::string name = "stage" + std::to_string(stage + 1) + "." + std::to_string(i);
      blocks.push_back(make_block<ResidualImpl>(name, channels, out, stage > 0 && i == 0 ? 2 : 1));
      channels = out;
    }
  }
  blocks.push_back(make_block<PooledLinearImpl>("head", channels, options.classes));
  return blocks;
}

}  // namespace rubato::zoo_detail
