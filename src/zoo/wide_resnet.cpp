#include <cstdint>

#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {
namespace {

constexpr std::int64_t stem_channels = 16;

class WideStemImpl : public torch::nn::Cloneable<WideStemImpl> {
 public:
  explicit WideStemImpl(std::int64_t in) : in_(in) { reset(); }
  void reset() override { conv_ = register_module("conv", plain_convolution(in_, stem_channels, 3)); }
  torch::Tensor forward(const torch::Tensor& input) { return conv_(input); }

 private:
  std::int64_t in_;
  torch::nn::Conv2d conv_{nullptr};
};

struct WideOptions {
  std::int64_t in, out, stride;
  double dropout;
};

/// Norm and ReLU before each convolution, dropout between the two. Where the shape changes, the shortcut is a 1 x 1
/// convolution of the activated input, as in the authors' code; elsewhere the input itself.
class WideResidualImpl : public torch::nn::Cloneable<WideResidualImpl> {
 public:
  explicit WideResidualImpl(WideOptions options) : options_(options) { reset(); }
  void reset() override {
    const auto& [in, out, stride, probability] = options_;
    norm1_ = register_module("norm1", torch::nn::BatchNorm2d(in));
    conv1_ = register_module("conv1", plain_convolution(in, out, 3, stride));
    norm2_ = register_module("norm2", torch::nn::BatchNorm2d(out));
    dropout_ = register_module("dropout", Dropout(probability));
    conv2_ = register_module("conv2", plain_convolution(out, out, 3));
    if (changes_shape()) shortcut_ = register_module("shortcut", plain_convolution(in, out, 1, stride));
  }
  torch::Tensor forward(const torch::Tensor& input) {
    const torch::Tensor active = torch::relu(norm1_(input));
    const torch::Tensor hidden = dropout_(torch::relu(norm2_(conv1_(active))));
    return conv2_(hidden) + (changes_shape() ? shortcut_(active) : input);
  }

 private:
  bool changes_shape() const { return options_.stride != 1 || options_.in != options_.out; }

  WideOptions options_;
  torch::nn::BatchNorm2d norm1_{nullptr}, norm2_{nullptr};
  torch::nn::Conv2d conv1_{nullptr}, conv2_{nullptr}, shortcut_{nullptr};
  Dropout dropout_{nullptr};
};

class WideHeadImpl : public torch::nn::Cloneable<WideHeadImpl> {
 public:
  WideHeadImpl(std::int64_t in, std::int64_t out) : in_(in), out_(out) { reset(); }
  void reset() override {
    norm_ = register_module("norm", torch::nn::BatchNorm2d(in_));
    linear_ = register_module("linear", torch::nn::Linear(in_, out_));
  }
  torch::Tensor forward(const torch::Tensor& input) { return linear_(torch::relu(norm_(input)).mean({2, 3})); }

 private:
  std::int64_t in_, out_;
  torch::nn::BatchNorm2d norm_{nullptr};
  torch::nn::Linear linear_{nullptr};
};

}  // namespace

/// "Wide residual networks" (Zagoruyko and Komodakis 2016). The width is that of the first stage: 16 times the paper's
/// k.
std::vector<Block> wide_resnet(const ZooOptions& options, int blocks_per_stage) {
  std::int64_t channels = stem_channels;
  std::vector<Block> blocks{make_block<WideStemImpl>("stem", options.channels)};
  for (int stage = 0; stage < 3; ++stage) {
    const std::int64_t out = options.width << stage;
    for (int i = 0; i < blocks_per_stage; ++i) {
      const std::string name = "stage" + std::to_string(stage + 1) + "." + std::to_string(i);
      const std::int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      blocks.push_back(make_block<WideResidualImpl>(name, WideOptions{channels, out, stride, options.dropout}));
      channels = out;
    }
  }
  blocks.push_back(make_block<WideHeadImpl>("head", channels, options.classes));
  return blocks;
}

}  // namespace rubato::zoo_detail
