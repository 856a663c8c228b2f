#include "zoo/init.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "rubato/model/model.h"
#include "zoo_support.h"

namespace rubato::zoo_detail {
namespace zoo_init_test {

using torch::nn::AnyModule;

torch::Tensor drawn(AnyModule module, InitScheme scheme, const std::string& parameter) {
  initialise({Block{"only", module}}, scheme, 1);
  return module.ptr()->named_parameters()[parameter];
}

AnyModule linear() {
  return AnyModule(torch::nn::Linear(100, 80));
}
AnyModule convolution() {
  return AnyModule(torch::nn::Conv2d(torch::nn::Conv2dOptions(16, 40, 5)));
}

/// Of so many draws the largest comes close to, and none passes, the bound of a uniform law.
void expect_uniform(const torch::Tensor& values, double bound) {
  EXPECT_LE(values.abs().max().item<double>(), bound);
  EXPECT_GT(values.abs().max().item<double>(), 0.9 * bound);
  EXPECT_NEAR(values.std().item<double>(), bound / std::sqrt(3), 0.1 * bound);
}

void expect_normal(const torch::Tensor& values, double deviation) {
  EXPECT_NEAR(values.std().item<double>(), deviation, 0.05 * deviation);
  EXPECT_NEAR(values.mean().item<double>(), 0, 0.1 * deviation);
  EXPECT_GT(values.abs().max().item<double>(), 2.5 * deviation);
}

TEST(Init, is_uniform_within_one_over_the_root_of_the_fan_in_by_default) {
  expect_uniform(drawn(linear(), InitScheme::torch_default, "weight"), 0.1);
  expect_uniform(drawn(linear(), InitScheme::torch_default, "bias"), 0.1);
  expect_uniform(drawn(convolution(), InitScheme::torch_default, "weight"), 1 / std::sqrt(16 * 25));
}

TEST(Init, is_uniform_within_one_over_the_root_of_the_hidden_units_in_an_lstm) {
  const AnyModule lstm(torch::nn::LSTM(30, 16));
  for (const char* name : {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0"}) {
    expect_uniform(drawn(lstm, InitScheme::torch_default, name), 0.25);
  }
}

TEST(Init, is_normal_with_variance_two_over_the_fan_out_in_residual_networks) {
  expect_normal(drawn(convolution(), InitScheme::he_normal, "weight"), std::sqrt(2.0 / (5 * 5 * 40)));
  expect_uniform(drawn(linear(), InitScheme::he_normal, "weight"), 0.1);
}

TEST(Init, is_normal_with_deviation_0_02_and_no_bias_in_transformers) {
  expect_normal(drawn(linear(), InitScheme::gaussian, "weight"), 0.02);
  EXPECT_EQ(drawn(linear(), InitScheme::gaussian, "bias").abs().max().item<double>(), 0);
}

TEST(Init, has_no_bias_in_the_easgd_network) {
  expect_uniform(drawn(linear(), InitScheme::zero_bias, "weight"), 0.1);
  EXPECT_EQ(drawn(linear(), InitScheme::zero_bias, "bias").abs().max().item<double>(), 0);
  EXPECT_EQ(drawn(convolution(), InitScheme::zero_bias, "bias").abs().max().item<double>(), 0);
}

TEST(Init, draws_embeddings_as_pytorch_does_and_small_under_the_gaussian_scheme) {
  const AnyModule embedding(torch::nn::Embedding(60, 50));
  expect_normal(drawn(embedding, InitScheme::torch_default, "weight"), 1.0);
  expect_normal(drawn(embedding, InitScheme::gaussian, "weight"), 0.02);
}

TEST(Init, starts_norms_as_the_identity) {
  const AnyModule norm(torch::nn::BatchNorm2d(4));
  for (torch::Tensor& parameter : norm.ptr()->parameters()) parameter.detach().fill_(7);
  EXPECT_TRUE(torch::equal(drawn(norm, InitScheme::he_normal, "weight"), torch::ones({4})));
  EXPECT_TRUE(torch::equal(drawn(norm, InitScheme::he_normal, "bias"), torch::zeros({4})));
}

TEST(Init, gives_equal_modules_in_different_blocks_different_weights) {
  const Block first{"a", linear()}, second{"b", linear()};
  initialise({first, second}, InitScheme::torch_default, 1);
  EXPECT_FALSE(torch::equal(first.module.ptr()->parameters()[0], second.module.ptr()->parameters()[0]));
}

TEST(Init, fails_on_a_module_that_it_has_no_rule_for) {
  EXPECT_THROW(drawn(AnyModule(torch::nn::PReLU()), InitScheme::torch_default, "weight"), std::logic_error);
}

}  // namespace zoo_init_test
}  // namespace rubato::zoo_detail
