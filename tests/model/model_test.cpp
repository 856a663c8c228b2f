#include "rubato/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "rubato/core/error.h"
#include "rubato/model/dropout.h"

namespace rubato {
namespace model_model_test {

using testing::AllOf;
using testing::HasSubstr;
using torch::nn::AnyModule;
using torch::nn::Linear;
using torch::nn::Sequential;

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was refused";
}

std::vector<Block> single(std::string name, AnyModule module) {
  return {Block{std::move(name), std::move(module)}};
}

TEST(CrossEntropy, is_the_mean_negative_log_likelihood) {
  const torch::Tensor output = torch::tensor({{0.0, std::log(3.0)}, {std::log(4.0), 0.0}});
  const double expected = (std::log(4.0 / 3.0) + std::log(5.0)) / 2;
  EXPECT_NEAR(cross_entropy(output, torch::tensor({1, 1})).item<double>(), expected, 1e-6);
}

TEST(CrossEntropy, averages_over_samples_and_positions_of_text) {
  const torch::Tensor output = torch::arange(24.0).cos().view({2, 3, 4});
  const torch::Tensor target = torch::tensor({{0, 1, 2}, {3, 0, 2}});
  const double flat = cross_entropy(output.view({6, 4}), target.view({6})).item<double>();
  EXPECT_DOUBLE_EQ(cross_entropy(output, target).item<double>(), flat);
}

TEST(CrossEntropy, names_both_shapes_when_they_do_not_fit) {
  const auto mismatched = [] { cross_entropy(torch::zeros({2, 3, 4}), torch::zeros({2, 4}, torch::kInt64)); };
  EXPECT_THAT(refusal(mismatched), AllOf(HasSubstr("[2, 3, 4]"), HasSubstr("[2, 4]")));
}

TEST(ModelFrom, makes_one_block_of_every_child_in_order) {
  const Model model = model_from(Sequential(Linear(3, 4), torch::nn::ReLU(), Linear(4, 2)));
  ASSERT_EQ(model.blocks.size(), 3u);
  EXPECT_EQ(model.blocks[0].name, "0");
  EXPECT_EQ(model.blocks[1].name, "1");
  EXPECT_EQ(model.blocks[2].name, "2");
}

TEST(ModelFrom, keeps_the_names_that_children_were_given) {
  const Model model = model_from(Sequential({{"hidden", AnyModule(Linear(3, 4))}, {"head", AnyModule(Linear(4, 2))}}));
  EXPECT_EQ(model.blocks[0].name, "hidden");
  EXPECT_EQ(model.blocks[1].name, "head");
}

TEST(ModelFrom, computes_what_the_sequential_computes) {
  Sequential sequential(Linear(3, 4), torch::nn::Tanh(), Linear(4, 2));
  Model model = model_from(sequential);
  torch::Tensor value = torch::arange(6.0).view({2, 3});
  const torch::Tensor expected = sequential->forward(value);
  for (Block& block : model.blocks) value = block.module.forward(value);
  EXPECT_TRUE(torch::equal(value, expected));
}

TEST(ModelFrom, leaves_the_users_module_alone) {
  Linear linear(3, 4);
  Model model = model_from(Sequential(linear));
  model.blocks[0].module.ptr()->parameters()[0].detach().zero_();
  EXPECT_GT(linear->weight.abs().sum().item<double>(), 0);
}

TEST(ModelFrom, replaces_a_dropout_child_by_one_that_can_be_repeated) {
  Model model = model_from(Sequential(torch::nn::Dropout(0.2)));
  const PassKeyScope scope({1, 2, 3});
  const torch::Tensor output = model.blocks[0].module.forward(torch::ones({4, 64}));
  EXPECT_NE(model.blocks[0].module.ptr()->as<DropoutImpl>(), nullptr);
  EXPECT_FLOAT_EQ(output.max().item<float>(), 1.25f);
}

TEST(ModelFrom, keeps_a_dropout_child_in_evaluation_mode) {
  torch::nn::Dropout dropout(0.2);
  dropout->eval();
  EXPECT_FALSE(model_from(Sequential(dropout)).blocks[0].module.ptr()->is_training());
}

template <class Inner>
struct WrapImpl : torch::nn::Cloneable<WrapImpl<Inner>> {
  explicit WrapImpl(Inner module) : inner(std::move(module)) { reset(); }
  void reset() override { this->register_module("inner", inner); }
  torch::Tensor forward(const torch::Tensor& input) { return input; }
  Inner inner;
};

template <class Inner>
std::string refusal_of_nested(Inner inner) {
  return refusal([&] { model_from(single("body", AnyModule(std::make_shared<WrapImpl<Inner>>(inner)))); });
}

TEST(ModelFrom, names_the_child_that_hides_a_dropout) {
  EXPECT_THAT(refusal_of_nested(torch::nn::Dropout(0.5)), AllOf(HasSubstr("'body'"), HasSubstr("'body.inner'")));
}

TEST(ModelFrom, refuses_every_other_module_that_draws_globally) {
  using namespace torch::nn;
  const std::string reason = "global generator";
  EXPECT_THAT(refusal_of_nested(Dropout2d(0.5)), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(Dropout3d(0.5)), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(AlphaDropout(0.5)), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(FeatureAlphaDropout(0.5)), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(RReLU()), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(LSTM(LSTMOptions(2, 2).num_layers(2).dropout(0.5))), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(GRU(GRUOptions(2, 2).num_layers(2).dropout(0.5))), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(MultiheadAttention(MultiheadAttentionOptions(2, 1).dropout(0.5))), HasSubstr(reason));
  EXPECT_THAT(refusal_of_nested(FractionalMaxPool2d(FractionalMaxPool2dOptions(2).output_size(2))), HasSubstr(reason));
  EXPECT_THAT(refusal([] { model_from(Sequential(torch::nn::Dropout2d(0.5))); }), HasSubstr(reason));
}

TEST(ModelFrom, accepts_nested_modules_that_would_not_draw) {
  EXPECT_EQ(refusal_of_nested(torch::nn::Dropout(0.0)), "nothing was refused");
  EXPECT_EQ(refusal_of_nested(torch::nn::LSTM(2, 2)), "nothing was refused");
  EXPECT_EQ(refusal_of_nested(rubato::Dropout(0.5)), "nothing was refused");
}

struct UncopyableImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& input) { return input; }
};

TEST(ModelFrom, names_a_block_that_cannot_be_cloned_and_the_way_out) {
  const auto build = [] { model_from(single("odd", AnyModule(std::make_shared<UncopyableImpl>()))); };
  EXPECT_THAT(refusal(build), AllOf(HasSubstr("'odd'"), HasSubstr("torch::nn::Cloneable")));
}

TEST(ModelFrom, refuses_a_model_without_blocks) {
  EXPECT_THAT(refusal([] { model_from(std::vector<Block>{}); }), HasSubstr("0 blocks"));
  EXPECT_THAT(refusal([] { model_from(Sequential()); }), HasSubstr("0 blocks"));
}

TEST(ModelFrom, refuses_blocks_without_a_name_or_a_module) {
  EXPECT_THAT(refusal([] { model_from(single("", AnyModule(Linear(1, 1)))); }), HasSubstr("block 0"));
  EXPECT_THAT(refusal([] { model_from(single("hollow", AnyModule())); }), HasSubstr("'hollow'"));
}

TEST(ModelFrom, refuses_two_blocks_of_one_name) {
  const auto build = [] { model_from({Block{"a", AnyModule(Linear(1, 1))}, Block{"a", AnyModule(Linear(1, 1))}}); };
  EXPECT_THAT(refusal(build), HasSubstr("two blocks are named 'a'"));
}

TEST(ModelFrom, refuses_blocks_that_share_weights) {
  Linear shared(2, 2);
  const auto build = [&] { model_from({Block{"a", AnyModule(shared)}, Block{"b", AnyModule(shared)}}); };
  EXPECT_THAT(refusal(build), AllOf(HasSubstr("'a'"), HasSubstr("'b'"), HasSubstr("'weight'")));
}

TEST(ModelFrom, keeps_the_loss_it_is_given) {
  const auto zero = [](const torch::Tensor& output, const torch::Tensor&) { return output.sum() * 0; };
  const Model model = model_from(Sequential(Linear(1, 1)), zero);
  EXPECT_EQ(model.task.loss(torch::ones({2, 2}), torch::Tensor()).item<double>(), 0);
}

}  // namespace model_model_test
}  // namespace rubato
