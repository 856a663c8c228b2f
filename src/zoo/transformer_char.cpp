#include <cmath>
#include <cstdint>
#include <limits>

#include "rubato/core/error.h"
#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {
namespace {

constexpr std::int64_t heads = 4;
constexpr int layers = 4;

/// Token plus learned position.
class PositionedImpl : public torch::nn::Cloneable<PositionedImpl> {
 public:
  PositionedImpl(std::int64_t vocabulary, std::int64_t length, std::int64_t width)
      : vocabulary_(vocabulary), length_(length), width_(width) {
    reset();
  }
  void reset() override {
    tokens_ = register_module("tokens", torch::nn::Embedding(vocabulary_, width_));
    positions_ = register_module("positions", torch::nn::Embedding(length_, width_));
  }
  torch::Tensor forward(const torch::Tensor& tokens) {
    const std::int64_t length = tokens.size(1);
    if (length > length_) {
      throw UsageError("a sequence of " + std::to_string(length) + " tokens is longer than the " + std::to_string(length_) +
                       " this transformer has positions for; build it with a larger "
                       "sequence length");
    }
    return tokens_(tokens) + positions_->weight.slice(0, 0, length);
  }

 private:
  std::int64_t vocabulary_, length_, width_;
  torch::nn::Embedding tokens_{nullptr}, positions_{nullptr};
};

/// x = x + attention(norm(x)), then x = x + mlp(norm(x)): the pre-norm form (Xiong et al. 2020).
class TransformerLayerImpl : public torch::nn::Cloneable<TransformerLayerImpl> {
 public:
  TransformerLayerImpl(std::int64_t width, double dropout) : width_(width), probability_(dropout) { reset(); }
  void reset() override {
    using namespace torch::nn;
    norm1_ = register_module("norm1", LayerNorm(LayerNormOptions({width_})));
    queries_keys_values_ = register_module("qkv", Linear(width_, 3 * width_));
    project_ = register_module("project", Linear(width_, width_));
    norm2_ = register_module("norm2", LayerNorm(LayerNormOptions({width_})));
    expand_ = register_module("expand", Linear(width_, 4 * width_));
    contract_ = register_module("contract", Linear(4 * width_, width_));
    dropout_ = register_module("dropout", rubato::Dropout(probability_));
  }
  torch::Tensor forward(const torch::Tensor& input) {
    const torch::Tensor attended = input + dropout_(project_(attention(norm1_(input))));
    return attended + dropout_(contract_(torch::gelu(expand_(norm2_(attended)))));
  }

 private:
  /// softmax(Q K^T / sqrt(d) + mask) V per head (Vaswani et al. 2017, equation 1); no position sees a later one.
  torch::Tensor attention(const torch::Tensor& input) {
    const std::int64_t samples = input.size(0), length = input.size(1), depth = width_ / heads;
    const auto split = queries_keys_values_(input).view({samples, length, 3, heads, depth}).permute({2, 0, 3, 1, 4});
    const torch::Tensor query = split[0], key = split[1], value = split[2];
    const torch::Tensor scores = query.matmul(key.transpose(-2, -1)) / std::sqrt(static_cast<double>(depth));
    const torch::Tensor later = torch::ones({length, length}, input.options().dtype(torch::kBool)).triu(1);
    const torch::Tensor masked = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
    return dropout_(masked.softmax(-1)).matmul(value).transpose(1, 2).reshape({samples, length, width_});
  }

  std::int64_t width_;
  double probability_;
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  torch::nn::Linear queries_keys_values_{nullptr}, project_{nullptr}, expand_{nullptr}, contract_{nullptr};
  rubato::Dropout dropout_{nullptr};
};

class NormedHeadImpl : public torch::nn::Cloneable<NormedHeadImpl> {
 public:
  NormedHeadImpl(std::int64_t width, std::int64_t vocabulary) : width_(width), vocabulary_(vocabulary) { reset(); }
  void reset() override {
    norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width_})));
    linear_ = register_module("linear", torch::nn::Linear(width_, vocabulary_));
  }
  torch::Tensor forward(const torch::Tensor& input) { return linear_(norm_(input)); }

 private:
  std::int64_t width_, vocabulary_;
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear linear_{nullptr};
};

}  // namespace

std::vector<Block> transformer_char(const ZooOptions& options) {
  if (options.width % heads != 0) {
    throw UsageError("width " + std::to_string(options.width) + " cannot be split over the " + std::to_string(heads) +
                     " attention heads of transformer-char; give a multiple of " + std::to_string(heads));
  }
  std::vector<Block> blocks{make_block<PositionedImpl>("embedding", options.classes, options.sequence_length, options.width)};
  for (int layer = 1; layer <= layers; ++layer) {
    const std::string name = "layer" + std::to_string(layer);
    blocks.push_back(make_block<TransformerLayerImpl>(name, options.width, options.dropout));
  }
  blocks.push_back(make_block<NormedHeadImpl>("head", options.width, options.classes));
  return blocks;
}

}  // namespace rubato::zoo_detail
