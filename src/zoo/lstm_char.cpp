#include <cstdint>
#include <tuple>

#include "zoo/families.h"
#include "zoo/layers.h"

namespace rubato::zoo_detail {
namespace {

class CharactersImpl : public torch::nn::Cloneable<CharactersImpl> {
 public:
  CharactersImpl(std::int64_t vocabulary, std::int64_t width) : vocabulary_(vocabulary), width_(width) { reset(); }
  void reset() override { tokens_ = register_module("tokens", torch::nn::Embedding(vocabulary_, width_)); }
  torch::Tensor forward(const torch::Tensor& tokens) { return tokens_(tokens); }

 private:
  std::int64_t vocabulary_, width_;
  torch::nn::Embedding tokens_{nullptr};
};

/// One layer. Hidden state and cell start at zero for every sample: batches are shuffled, so no state is carried over.
class RecurrentImpl : public torch::nn::Cloneable<RecurrentImpl> {
 public:
  RecurrentImpl(std::int64_t width, double dropout) : width_(width), probability_(dropout) { reset(); }
  void reset() override {
    lstm_ = register_module("lstm", torch::nn::LSTM(torch::nn::LSTMOptions(width_, width_).batch_first(true)));
    dropout_ = register_module("dropout", Dropout(probability_));
  }
  torch::Tensor forward(const torch::Tensor& input) { return dropout_(std::get<0>(lstm_(input))); }

 private:
  std::int64_t width_;
  double probability_;
  torch::nn::LSTM lstm_{nullptr};
  Dropout dropout_{nullptr};
};

class CharacterHeadImpl : public torch::nn::Cloneable<CharacterHeadImpl> {
 public:
  CharacterHeadImpl(std::int64_t width, std::int64_t vocabulary) : width_(width), vocabulary_(vocabulary) { reset(); }
  void reset() override { linear_ = register_module("linear", torch::nn::Linear(width_, vocabulary_)); }
  torch::Tensor forward(const torch::Tensor& input) { return linear_(input); }

 private:
  std::int64_t width_, vocabulary_;
  torch::nn::Linear linear_{nullptr};
};

}  // namespace

std::vector<Block> lstm_char(const ZooOptions& options) {
  return {make_block<CharactersImpl>("embedding", options.classes, options.width),
          make_block<RecurrentImpl>("lstm1", options.width, options.dropout),
          make_block<RecurrentImpl>("lstm2", options.width, options.dropout),
          make_block<CharacterHeadImpl>("head", options.width, options.classes)};
}

}  // namespace rubato::zoo_detail
