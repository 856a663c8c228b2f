#include "rubato/model/learning_rate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "rubato/core/error.h"

namespace rubato {
namespace model_learning_rate_test {

TEST(LearningRate, constant_stays) {
  const LearningRate rate{.base = 0.3};
  EXPECT_DOUBLE_EQ(rate.at(0), 0.3);
  EXPECT_DOUBLE_EQ(rate.at(1'000'000), 0.3);
}

TEST(LearningRate, warms_up_linearly_and_reaches_its_base_with_the_last_warm_up_update) {
  const LearningRate rate{.base = 0.4, .warmup = 4};
  EXPECT_DOUBLE_EQ(rate.at(0), 0.1);
  EXPECT_DOUBLE_EQ(rate.at(3), 0.4);
  EXPECT_DOUBLE_EQ(rate.at(4), 0.4);
}

TEST(LearningRate, cosine_begins_at_base_passes_half_and_ends_at_zero) {
  const LearningRate rate{.base = 1, .schedule = "cosine", .warmup = 10, .total = 110};
  EXPECT_DOUBLE_EQ(rate.at(10), 1);
  EXPECT_NEAR(rate.at(60), 0.5, 1e-12);
  EXPECT_NEAR(rate.at(110), 0, 1e-12);
  EXPECT_NEAR(rate.at(500), 0, 1e-12);
}

TEST(LearningRate, step_multiplies_every_so_many_updates) {
  const LearningRate rate{.base = 1, .schedule = "step", .step_every = 10, .step_factor = 0.5};
  EXPECT_DOUBLE_EQ(rate.at(9), 1);
  EXPECT_DOUBLE_EQ(rate.at(10), 0.5);
  EXPECT_DOUBLE_EQ(rate.at(35), 0.125);
}

/// Eight replicas with eleven batches: an epoch is 1.375 steps.
TEST(LearningRate, epochs_need_not_be_whole_steps) {
  const LearningRate rate{.base = 1, .schedule = "step", .step_every = 11 / 8.0, .step_factor = 0.5};
  EXPECT_DOUBLE_EQ(rate.at(1), 1);
  EXPECT_DOUBLE_EQ(rate.at(2), 0.5);
  EXPECT_DOUBLE_EQ(rate.at(10), std::pow(0.5, 7));
  EXPECT_DOUBLE_EQ(rate.at(11), std::pow(0.5, 8));
  const LearningRate warm{.base = 1, .warmup = 5.5};
  EXPECT_DOUBLE_EQ(warm.at(4), 5 / 5.5);
  EXPECT_DOUBLE_EQ(warm.at(5), 1);
}

TEST(LearningRate, a_cut_within_the_warm_up_counts_from_the_moment_it_is_due) {
  const LearningRate rate{.base = 1, .schedule = "step", .warmup = 10, .step_every = 5, .step_factor = 0.5};
  EXPECT_DOUBLE_EQ(rate.at(4), 0.5);
  EXPECT_DOUBLE_EQ(rate.at(5), 0.6 * 0.5);
  EXPECT_DOUBLE_EQ(rate.at(10), 0.25);
}

TEST(LearningRate, refuses_what_cannot_work) {
  EXPECT_THROW(LearningRate{.base = 0}.check(), UsageError);
  EXPECT_THROW((LearningRate{.schedule = "cosin"}.check()), UsageError);
  EXPECT_THROW((LearningRate{.schedule = "step", .step_every = 0}.check()), UsageError);
}

}  // namespace model_learning_rate_test
}  // namespace rubato
