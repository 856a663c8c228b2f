#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/model/model.h"
#include "zoo_support.h"

namespace rubato {
namespace zoo_every_model_test {

/// What must hold for each row of the zoo.
class EveryModel : public testing::TestWithParam<ModelEntry> {
 protected:
  ZooOptions options_ = small_options(GetParam());
  torch::Tensor input_ = small_input(options_, GetParam().text);
};

TEST_P(EveryModel, maps_a_batch_to_one_score_for_each_class) {
  Model model = make_model(options_);
  const torch::Tensor output = run(model, input_);
  const std::vector<std::int64_t> image{4, 7}, text{4, 9, 7};
  EXPECT_EQ(output.sizes(), torch::IntArrayRef(GetParam().text ? text : image));
  EXPECT_EQ(output.scalar_type(), torch::kFloat32);
  EXPECT_TRUE(output.isfinite().all().item<bool>());
}

TEST_P(EveryModel, sends_a_gradient_to_every_parameter) {
  Model model = make_model(options_);
  const torch::Tensor output = run(model, input_);
  const torch::Tensor target = torch::arange(output.numel() / 7).remainder(7).view(output.sizes().slice(0, output.dim() - 1));
  const auto gradients = torch::autograd::grad({model.task.loss(output, target)}, parameters_of(model));
  for (const torch::Tensor& gradient : gradients) EXPECT_GT(gradient.abs().sum().item<double>(), 0);
}

TEST_P(EveryModel, has_blocks_whose_clones_hold_equal_weights_in_storage_of_their_own) {
  const Model model = make_model(options_);
  for (const Block& block : model.blocks) {
    const torch::nn::AnyModule clone = block.module.clone();
    const auto originals = block.module.ptr()->named_parameters(), copies = clone.ptr()->named_parameters();
    ASSERT_EQ(copies.keys(), originals.keys());
    for (const auto& original : originals) {
      EXPECT_TRUE(torch::equal(original.value(), copies[original.key()])) << block.name << "." << original.key();
      EXPECT_NE(original.value().data_ptr(), copies[original.key()].data_ptr()) << block.name << "." << original.key();
    }
  }
}

/// `Stage` binds a clone to a snapshot by `set_data`; a module that computed with anything else would not notice.
TEST_P(EveryModel, computes_in_a_clone_with_the_weights_that_the_clone_is_bound_to) {
  Model model = make_model(options_);
  options_.seed = 2;
  Model other = make_model(options_);
  const torch::Tensor expected = run(other, input_);
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    model.blocks[i].module = model.blocks[i].module.clone();
    const auto theirs = other.blocks[i].module.ptr()->named_parameters();
    for (auto& mine : model.blocks[i].module.ptr()->named_parameters()) {
      mine.value().set_data(theirs[mine.key()].detach());
    }
  }
  EXPECT_TRUE(torch::equal(run(model, input_), expected));
}

TEST_P(EveryModel, starts_from_weights_that_depend_on_the_seed_alone) {
  const auto first = parameters_of(make_model(options_));
  const torch::nn::Linear draws_from_the_global_generator(5, 5);
  const auto second = parameters_of(make_model(options_));
  ASSERT_EQ(first.size(), second.size());
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(torch::equal(first[i], second[i])) << i;
}

TEST_P(EveryModel, starts_from_other_weights_under_another_seed) {
  const auto first = parameters_of(make_model(options_));
  options_.seed = 2;
  const auto second = parameters_of(make_model(options_));
  for (std::size_t i = 0; i < first.size(); ++i) {
    const bool is_drawn = first[i].dim() > 1;
    EXPECT_FALSE(is_drawn && torch::equal(first[i], second[i])) << i;
  }
}

TEST_P(EveryModel, gives_the_same_output_twice_in_evaluation_mode) {
  Model model = make_model(options_);
  torch::Tensor first = input_, second = input_;
  for (Block& block : model.blocks) {
    block.module.ptr()->eval();
    first = block.module.forward(first);
    second = block.module.forward(second);
  }
  EXPECT_TRUE(torch::equal(first, second));
}

std::string test_name(const testing::TestParamInfo<ModelEntry>& info) {
  std::string name = info.param.name;
  for (char& letter : name) letter = letter == '-' ? '_' : letter;
  return name;
}

std::vector<ModelEntry> classifiers() {
  std::vector<ModelEntry> all = models();
  std::erase_if(all, [](const ModelEntry& entry) { return entry.name == "quadratic"; });
  return all;
}

INSTANTIATE_TEST_SUITE_P(Zoo, EveryModel, testing::ValuesIn(classifiers()), test_name);

}  // namespace zoo_every_model_test
}  // namespace rubato
