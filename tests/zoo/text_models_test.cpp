#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "zoo_support.h"

namespace rubato {
namespace zoo_text_models_test {

class TextModel : public testing::TestWithParam<const char*> {
 protected:
  ZooOptions options_{.model = GetParam(), .classes = 7, .sequence_length = 9, .width = 16};
  torch::Tensor tokens_ = small_input(options_, true);
};

TEST_P(TextModel, sees_no_later_token) {
  Model model = make_model(options_);
  const std::int64_t changed = 5;
  const torch::Tensor before = run(model, tokens_);
  torch::Tensor column = tokens_.select(1, changed);
  column.copy_((column + 1).remainder(7));
  const torch::Tensor after = run(model, tokens_);
  EXPECT_TRUE(torch::allclose(before.narrow(1, 0, changed), after.narrow(1, 0, changed), 0, 1e-6));
}

TEST_P(TextModel, remembers_earlier_tokens) {
  Model model = make_model(options_);
  const torch::Tensor before = run(model, tokens_);
  torch::Tensor column = tokens_.select(1, 5);
  column.copy_((column + 1).remainder(7));
  const torch::Tensor after = run(model, tokens_);
  for (std::int64_t position = 5; position < 9; ++position) {
    EXPECT_FALSE(torch::equal(before.select(1, position), after.select(1, position))) << position;
  }
}

TEST_P(TextModel, treats_every_sample_on_its_own) {
  Model model = make_model(options_);
  const torch::Tensor together = run(model, tokens_);
  for (std::int64_t sample = 0; sample < 4; ++sample) {
    const torch::Tensor alone = run(model, tokens_.narrow(0, sample, 1));
    EXPECT_TRUE(torch::allclose(together.narrow(0, sample, 1), alone, 0, 1e-6)) << sample;
  }
}

TEST_P(TextModel, takes_sequences_shorter_than_it_was_built_for) {
  Model model = make_model(options_);
  EXPECT_TRUE(torch::allclose(run(model, tokens_.narrow(1, 0, 4)), run(model, tokens_).narrow(1, 0, 4), 0, 1e-6));
}

TEST_P(TextModel, drops_only_when_asked) {
  Model plain = make_model(options_);
  options_.dropout = 0.3;
  Model dropping = make_model(options_);
  EXPECT_FALSE(torch::equal(run(plain, tokens_), run(dropping, tokens_)));
  EXPECT_TRUE(torch::equal(run(dropping, tokens_), run(dropping, tokens_)));
}

INSTANTIATE_TEST_SUITE_P(Zoo, TextModel, testing::Values("lstm-char", "transformer-char"),
                         [](const auto& info) { return std::string(info.param).substr(0, 4); });

TEST(Transformer, names_the_length_that_it_has_no_positions_for) {
  Model model = make_model({.model = "transformer-char", .classes = 7, .sequence_length = 9, .width = 16});
  const torch::Tensor tokens = torch::zeros({1, 12}, torch::kInt64);
  EXPECT_THROW(run(model, tokens), UsageError);
}

TEST(Transformer, tells_equal_tokens_apart_by_position) {
  Model model = make_model({.model = "transformer-char", .classes = 7, .sequence_length = 9, .width = 16});
  const torch::Tensor output = run(model, torch::zeros({1, 9}, torch::kInt64));
  EXPECT_FALSE(torch::equal(output.select(1, 0), output.select(1, 1)));
}

}  // namespace zoo_text_models_test
}  // namespace rubato
