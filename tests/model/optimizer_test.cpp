#include "rubato/model/optimizer.h"

#include <gtest/gtest.h>

#include "rubato/core/error.h"

namespace rubato {
namespace model_optimizer_test {

TEST(Optimizer, every_listed_name_can_be_made_and_moves_weights) {
  for (const OptimizerEntry& entry : optimizers()) {
    const std::string& name = entry.name;
    torch::Tensor weight = torch::ones({3}).requires_grad_();
    OptimizerOptions options{.name = name, .learning_rate = {.base = 0.1}};
    EXPECT_NO_THROW(options.check()) << name;
    const auto optimizer = make_optimizer(options, {weight});
    weight.mutable_grad() = torch::ones({3});
    optimizer->step();
    EXPECT_LT(weight[0].item<float>(), 1) << name;
  }
}

TEST(Optimizer, clips_the_norm_of_a_block_and_keeps_its_direction) {
  std::vector<torch::Tensor> gradients = {torch::tensor({3.f}), torch::Tensor(), torch::tensor({4.f})};
  clip({.clip_norm = 1}, gradients);
  EXPECT_FLOAT_EQ(gradients[0].item<float>(), 0.6f);
  EXPECT_FLOAT_EQ(gradients[2].item<float>(), 0.8f);
  clip({.clip_norm = 2}, gradients);
  EXPECT_FLOAT_EQ(gradients[2].item<float>(), 0.8f);
}

TEST(Optimizer, clips_values) {
  std::vector<torch::Tensor> gradients = {torch::tensor({3.f, -5.f, 0.5f})};
  clip({.clip_value = 1}, gradients);
  EXPECT_TRUE(torch::equal(gradients[0], torch::tensor({1.f, -1.f, 0.5f})));
}

TEST(Optimizer, refuses_momentum_and_nesterov_where_they_mean_nothing) {
  EXPECT_THROW((OptimizerOptions{.name = "adam", .momentum = 0.9}.check()), UsageError);
  EXPECT_THROW((OptimizerOptions{.name = "sgd", .nesterov = true}.check()), UsageError);
  EXPECT_THROW((OptimizerOptions{.name = "sgd", .momentum = 1}.check()), UsageError);
  EXPECT_THROW((OptimizerOptions{.name = "sdg"}.check()), UsageError);
}

}  // namespace model_optimizer_test
}  // namespace rubato
