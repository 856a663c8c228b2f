#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/model/model.h"
#include "zoo_support.h"

namespace rubato {
namespace zoo_resnet_test {

/// The second norm of a block scales the residual branch; at zero the block is its shortcut and the last ReLU.
torch::nn::AnyModule shortcut_of(const Block& block) {
  torch::nn::AnyModule module = block.module.clone();
  module.ptr()->named_parameters()["norm2.weight"].detach().zero_();
  return module;
}

TEST(ResNet, passes_the_input_through_where_the_shape_stays) {
  const Model model = make_model({.model = "resnet8", .channels = 3, .image_size = 8});
  torch::nn::AnyModule shortcut = shortcut_of(model.blocks[1]);
  const torch::Tensor input = torch::empty({2, 16, 8, 8}).normal_(0, 1, test_generator(1));
  EXPECT_TRUE(torch::equal(shortcut.forward(input), torch::relu(input)));
}

TEST(ResNet, subsamples_and_appends_zero_channels_where_the_shape_changes) {
  const Model model = make_model({.model = "resnet8", .channels = 3, .image_size = 8});
  torch::nn::AnyModule shortcut = shortcut_of(model.blocks[2]);
  const torch::Tensor input = torch::empty({2, 16, 7, 8}).normal_(0, 1, test_generator(1));
  const torch::Tensor output = shortcut.forward(input);
  ASSERT_EQ(output.sizes(), torch::IntArrayRef({2, 32, 4, 4}));
  for (std::int64_t y = 0; y < 4; ++y) {
    for (std::int64_t x = 0; x < 4; ++x) {
      const torch::Tensor pixel = output.select(3, x).select(2, y);
      const torch::Tensor source = input.select(3, 2 * x).select(2, 2 * y);
      EXPECT_TRUE(torch::equal(pixel.narrow(1, 0, 16), torch::relu(source)));
      EXPECT_EQ(pixel.narrow(1, 16, 16).abs().max().item<double>(), 0);
    }
  }
}

TEST(ResNet, has_no_parameters_in_its_shortcuts) {
  const Model model = make_model({.model = "resnet20", .channels = 3, .image_size = 8});
  for (const Block& block : model.blocks) {
    for (const std::string& name : block.module.ptr()->named_parameters().keys()) {
      EXPECT_EQ(name.find("shortcut"), std::string::npos) << block.name << "." << name;
    }
  }
}

TEST(WideResNet, passes_the_input_through_unchanged_where_the_shape_stays) {
  const Model model = make_model({.model = "wrn28-10", .channels = 3, .image_size = 8, .width = 8});
  torch::nn::AnyModule block = model.blocks[2].module.clone();
  block.ptr()->named_parameters()["conv2.weight"].detach().zero_();
  const torch::Tensor input = torch::empty({2, 8, 8, 8}).normal_(0, 1, test_generator(1));
  EXPECT_TRUE(torch::equal(block.forward(input), input));
}

TEST(WideResNet, drops_between_the_convolutions_only_when_asked) {
  const ZooOptions plain{.model = "wrn28-10", .channels = 3, .image_size = 8, .width = 8};
  ZooOptions dropping = plain;
  dropping.dropout = 0.3;
  Model first = make_model(plain), second = make_model(dropping);
  const torch::Tensor input = small_input(plain, false);
  EXPECT_FALSE(torch::equal(run(first, input), run(second, input)));
  EXPECT_TRUE(torch::equal(run(second, input), run(second, input)));
}

}  // namespace zoo_resnet_test
}  // namespace rubato
