#include "zoo/init.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "rubato/core/random.h"

namespace rubato::zoo_detail {
namespace {

struct Fill {
  enum Kind { constant, uniform, normal } kind;
  double scale;  ///< the constant, half the width, the standard deviation
};

struct Fills {
  Fill weight, bias;
};

constexpr Fill zero{Fill::constant, 0};
constexpr Fill narrow{Fill::normal, 0.02};

/// Of a weight laid out as out x in x kernel, as linear layers and convolutions keep theirs.
Fill inverse_root_of_fan_in(const torch::Tensor& weight) {
  return {Fill::uniform, 1 / std::sqrt(static_cast<double>(weight.numel() / weight.size(0)))};
}

Fills linear_fills(const torch::nn::LinearImpl& linear, InitScheme scheme) {
  if (scheme == InitScheme::gaussian) return {narrow, zero};
  const Fill fill = inverse_root_of_fan_in(linear.weight);
  return {fill, scheme == InitScheme::zero_bias ? zero : fill};
}

Fills convolution_fills(const torch::nn::Conv2dImpl& convolution, InitScheme scheme) {
  const torch::Tensor& weight = convolution.weight;
  if (scheme == InitScheme::he_normal) {
    const double fan_out = static_cast<double>(weight.size(0) * weight.size(2) * weight.size(3));
    return {{Fill::normal, std::sqrt(2 / fan_out)}, zero};
  }
  const Fill fill = inverse_root_of_fan_in(weight);
  return {fill, scheme == InitScheme::zero_bias ? zero : fill};
}

Fills fills_for(const torch::nn::Module& module, InitScheme scheme) {
  using namespace torch::nn;
  if (const auto* linear = module.as<LinearImpl>()) return linear_fills(*linear, scheme);
  if (const auto* convolution = module.as<Conv2dImpl>()) return convolution_fills(*convolution, scheme);
  if (module.as<EmbeddingImpl>() != nullptr) return {{Fill::normal, scheme == InitScheme::gaussian ? 0.02 : 1.0}, zero};
  if (module.as<BatchNorm2dImpl>() != nullptr || module.as<LayerNormImpl>() != nullptr) {
    return {{Fill::constant, 1}, zero};
  }
  if (const auto* lstm = module.as<LSTMImpl>()) {
    const Fill fill{Fill::uniform, 1 / std::sqrt(static_cast<double>(lstm->options.hidden_size()))};
    return {fill, fill};
  }
  throw std::logic_error("no initial weights are defined for " + module.name());
}

void draw(torch::Tensor parameter, Fill fill, RandomStream stream) {
  const torch::NoGradGuard no_grad;
  const torch::Generator generator = at::make_generator<at::CPUGeneratorImpl>(stream());
  if (fill.kind == Fill::constant) parameter.fill_(fill.scale);
  if (fill.kind == Fill::uniform) parameter.uniform_(-fill.scale, fill.scale, generator);
  if (fill.kind == Fill::normal) parameter.normal_(0, fill.scale, generator);
}

}  // namespace

void initialise(const std::vector<Block>& blocks, InitScheme scheme, std::uint64_t seed) {
  if (scheme == InitScheme::as_built) return;
  for (std::uint64_t block = 0; block < blocks.size(); ++block) {
    std::uint64_t index = 0;
    for (const auto& module : blocks[block].module.ptr()->modules()) {
      const auto parameters = module->named_parameters(/*recurse=*/false);
      if (parameters.is_empty()) continue;
      const Fills fills = fills_for(*module, scheme);
      for (const auto& parameter : parameters) {
        const bool is_bias = parameter.key().starts_with("bias");
        draw(parameter.value(), is_bias ? fills.bias : fills.weight, RandomStream(seed, RandomUse::weights, {block, index++}));
      }
    }
  }
}

}  // namespace rubato::zoo_detail
