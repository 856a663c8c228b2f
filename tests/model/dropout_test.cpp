#include "rubato/model/dropout.h"

#include <cstdint>

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "rubato/core/error.h"

namespace rubato {
namespace model_dropout_test {

torch::Tensor dropped(const PassKey& key, double probability = 0.5) {
  Dropout dropout(probability);
  const PassKeyScope scope(key);
  return dropout(torch::ones({4, 64}));
}

TEST(Dropout, drops_the_same_elements_for_the_same_pass) {
  EXPECT_TRUE(torch::equal(dropped({1, 7, 3}), dropped({1, 7, 3})));
}

TEST(Dropout, drops_other_elements_for_another_seed_batch_or_block) {
  const torch::Tensor reference = dropped({1, 7, 3});
  EXPECT_FALSE(torch::equal(reference, dropped({2, 7, 3})));
  EXPECT_FALSE(torch::equal(reference, dropped({1, 8, 3})));
  EXPECT_FALSE(torch::equal(reference, dropped({1, 7, 4})));
}

TEST(Dropout, draws_a_fresh_mask_at_each_call_of_a_pass) {
  Dropout dropout(0.5);
  const torch::Tensor ones = torch::ones({4, 64});
  const PassKeyScope scope({1, 7, 3});
  const torch::Tensor first = dropout(ones);
  EXPECT_FALSE(torch::equal(first, dropout(ones)));
}

TEST(Dropout, takes_no_number_from_the_global_generator) {
  const torch::Tensor before = at::detail::getDefaultCPUGenerator().get_state();
  dropped({1, 7, 3});
  EXPECT_TRUE(torch::equal(before, at::detail::getDefaultCPUGenerator().get_state()));
}

TEST(Dropout, scales_what_it_keeps_so_that_the_mean_stays) {
  const torch::Tensor output = dropped({1, 7, 3}, 0.2);
  const torch::Tensor kept = output.masked_select(output != 0);
  EXPECT_TRUE(torch::allclose(kept, torch::full_like(kept, 1.25)));
  EXPECT_NEAR(static_cast<double>(kept.numel()) / static_cast<double>(output.numel()), 0.8, 0.1);
}

TEST(Dropout, sends_gradients_only_through_what_it_keeps) {
  Dropout dropout(0.5);
  const torch::Tensor input = torch::ones({4, 64}, torch::requires_grad());
  const PassKeyScope scope({1, 7, 3});
  const torch::Tensor output = dropout(input);
  EXPECT_TRUE(torch::equal(torch::autograd::grad({output.sum()}, {input})[0], output));
}

TEST(Dropout, is_the_identity_in_evaluation_mode_and_needs_no_pass) {
  Dropout dropout(0.5);
  dropout->eval();
  const torch::Tensor input = torch::arange(6);
  EXPECT_TRUE(dropout(input).is_same(input));
}

TEST(Dropout, is_the_identity_at_probability_zero) {
  Dropout dropout(0.0);
  const torch::Tensor input = torch::arange(6);
  EXPECT_TRUE(dropout(input).is_same(input));
}

TEST(Dropout, refuses_to_draw_outside_a_pass) {
  Dropout dropout(0.5);
  EXPECT_THROW(dropout(torch::ones({2})), UsageError);
}

TEST(Dropout, refuses_probabilities_outside_zero_to_one) {
  EXPECT_THROW(Dropout(-0.1), UsageError);
  EXPECT_THROW(Dropout(1.0), UsageError);
  EXPECT_THROW(Dropout(std::nan("")), UsageError);
}

TEST(Dropout, keeps_its_probability_and_mode_when_cloned) {
  Dropout original(0.2);
  auto clone = std::dynamic_pointer_cast<DropoutImpl>(original->clone());
  ASSERT_NE(clone, nullptr);
  const PassKeyScope scope({1, 7, 3});
  EXPECT_TRUE(torch::equal(clone->forward(torch::ones({4, 64})), dropped({1, 7, 3}, 0.2)));
  original->eval();
  EXPECT_FALSE(original->clone()->is_training());
}

TEST(PassKeyScope, gives_the_outer_pass_back_when_the_inner_ends) {
  const auto draw = [] { return next_pass_generator().current_seed(); };
  const PassKeyScope outer({1, 1, 1});
  const std::uint64_t first = draw();
  {
    const PassKeyScope inner({2, 2, 2});
    EXPECT_NE(draw(), first);
  }
  const std::uint64_t second = draw();
  const PassKeyScope again({1, 1, 1});
  EXPECT_EQ(draw(), first);
  EXPECT_EQ(draw(), second);
}

}  // namespace model_dropout_test
}  // namespace rubato
