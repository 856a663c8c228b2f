#include "rubato/zoo/zoo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>

#include "rubato/core/error.h"
#include "zoo_support.h"

namespace rubato {
namespace zoo_zoo_test {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::int64_t cifar_count(const std::string& name) {
  return parameter_count(make_model({.model = name, .channels = 3, .image_size = 32}));
}

std::vector<std::string> block_names(const ZooOptions& options) {
  std::vector<std::string> names;
  for (const Block& block : make_model(options).blocks) names.push_back(block.name);
  return names;
}

std::string refusal(const ZooOptions& options) {
  try {
    make_model(options);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(Zoo, has_the_published_number_of_parameters_in_each_residual_network) {
  EXPECT_EQ(cifar_count("resnet8"), 75'290);
  EXPECT_EQ(cifar_count("resnet20"), 269'722);
  EXPECT_EQ(cifar_count("resnet56"), 853'018);
  EXPECT_EQ(cifar_count("resnet110"), 1'727'962);
}

TEST(Zoo, has_the_published_number_of_parameters_in_the_wide_residual_network) {
  EXPECT_EQ(cifar_count("wrn28-10"), 36'479'194);
}

TEST(Zoo, has_about_352_thousand_parameters_in_the_easgd_network) {
  EXPECT_EQ(parameter_count(make_model({.model = "easgd-cifar", .channels = 3, .image_size = 28})), 351'946);
}

TEST(Zoo, has_the_parameters_of_lenet_5_with_full_connections_at_both_its_sizes) {
  EXPECT_EQ(parameter_count(make_model({.model = "lenet", .channels = 1, .image_size = 28})), 61'706);
  EXPECT_EQ(parameter_count(make_model({.model = "lenet", .channels = 1, .image_size = 32})), 61'706);
}

TEST(Zoo, has_two_hidden_layers_of_256_units_in_the_default_mlp) {
  EXPECT_EQ(parameter_count(make_model({.model = "mlp"})), 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10);
}

TEST(Zoo, makes_a_block_of_every_place_where_a_cut_helps) {
  EXPECT_THAT(block_names({.model = "mlp"}), ElementsAre("fc1", "fc2", "fc3"));
  EXPECT_THAT(block_names({.model = "lenet"}), ElementsAre("conv1", "conv2", "fc1", "fc2", "fc3"));
  EXPECT_THAT(block_names({.model = "resnet8"}), ElementsAre("stem", "stage1.0", "stage2.0", "stage3.0", "head"));
  EXPECT_EQ(block_names({.model = "resnet110"}).size(), 56u);
  EXPECT_EQ(block_names({.model = "wrn28-10", .width = 8}).size(), 14u);
  EXPECT_THAT(block_names({.model = "lstm-char"}), ElementsAre("embedding", "lstm1", "lstm2", "head"));
  EXPECT_THAT(block_names({.model = "transformer-char"}),
              ElementsAre("embedding", "layer1", "layer2", "layer3", "layer4", "head"));
}

TEST(Zoo, lists_every_model_once_with_one_line_each) {
  std::set<std::string> names;
  for (const ModelEntry& entry : models()) {
    EXPECT_TRUE(names.insert(entry.name).second) << entry.name;
    EXPECT_FALSE(entry.summary.empty()) << entry.name;
    EXPECT_EQ(entry.summary.find('\n'), std::string::npos) << entry.name;
  }
  EXPECT_EQ(names.size(), 11u);
}

TEST(Zoo, quadratic_is_half_the_square_of_one_weight_whatever_it_sees) {
  const Model model = make_model({.model = "quadratic"});
  torch::nn::AnyModule module = model.blocks[0].module;
  const torch::Tensor output = module.forward(torch::zeros({3, 1, 28, 28}));
  const torch::Tensor loss = model.task.loss(output, torch::zeros({3}, torch::kInt64));
  EXPECT_EQ(loss.item<double>(), 500000);
  loss.backward();
  EXPECT_EQ(module.ptr()->parameters()[0].grad().item<double>(), 1000);
}

TEST(Zoo, scales_the_first_stage_with_the_width) {
  const Model model = make_model({.model = "resnet8", .channels = 3, .image_size = 32, .width = 4});
  EXPECT_EQ(model.blocks[0].module.ptr()->named_parameters()["conv.weight"].size(0), 4);
  EXPECT_EQ(model.blocks[3].module.ptr()->named_parameters()["conv2.weight"].size(0), 16);
}

TEST(Zoo, suggests_the_nearest_name_for_an_unknown_model) {
  EXPECT_THAT(refusal({.model = "resnet21"}), AllOf(HasSubstr("'resnet21'"), HasSubstr("'resnet20'")));
}

TEST(Zoo, refuses_an_image_that_a_layer_would_have_nothing_left_of) {
  EXPECT_THAT(refusal({.model = "easgd-cifar", .image_size = 23}), AllOf(HasSubstr("23"), HasSubstr("24")));
  EXPECT_THAT(refusal({.model = "lenet", .image_size = 11}), AllOf(HasSubstr("11"), HasSubstr("12")));
  EXPECT_THAT(refusal({.model = "resnet8", .image_size = 3}), HasSubstr("at least 4"));
  EXPECT_THAT(refusal({.model = "mlp", .image_size = 0}), HasSubstr("at least 1"));
}

TEST(Zoo, runs_at_the_smallest_image_that_it_accepts) {
  for (const auto& [name, size] : {std::pair{"easgd-cifar", 24}, {"lenet", 12}, {"resnet8", 4}, {"mlp", 1}}) {
    const ZooOptions options{.model = name, .channels = 1, .image_size = size};
    Model model = make_model(options);
    EXPECT_EQ(run(model, small_input(options, false)).sizes(), torch::IntArrayRef({4, 10})) << name;
  }
}

TEST(Zoo, refuses_sizes_below_one) {
  EXPECT_THAT(refusal({.model = "mlp", .width = -3}), AllOf(HasSubstr("-3"), HasSubstr("256")));
  EXPECT_THAT(refusal({.model = "mlp", .classes = 0}), HasSubstr("number of classes 0"));
  EXPECT_THAT(refusal({.model = "mlp", .channels = 0}), HasSubstr("channels 0"));
  EXPECT_THAT(refusal({.model = "lstm-char", .sequence_length = 0}), HasSubstr("sequence length 0"));
}

TEST(Zoo, refuses_a_transformer_width_that_its_heads_cannot_share) {
  EXPECT_THAT(refusal({.model = "transformer-char", .width = 30}), AllOf(HasSubstr("30"), HasSubstr("multiple of 4")));
}

TEST(Zoo, refuses_dropout_outside_zero_to_one_or_where_there_is_none) {
  EXPECT_THAT(refusal({.model = "mlp", .dropout = 1}), HasSubstr("dropout 1"));
  EXPECT_THAT(refusal({.model = "mlp", .dropout = -0.5}), HasSubstr("dropout -0.5"));
  EXPECT_THAT(refusal({.model = "resnet8", .dropout = 0.3}), HasSubstr("has no dropout"));
  EXPECT_EQ(refusal({.model = "resnet8", .dropout = 0}), "nothing was refused");
}

}  // namespace zoo_zoo_test
}  // namespace rubato
