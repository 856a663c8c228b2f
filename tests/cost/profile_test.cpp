#include "rubato/cost/profile.h"

#include <cstdint>
#include <functional>

#include <gtest/gtest.h>

#include "cost/flop_counter.h"
#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "support/lab.h"

namespace rubato {
namespace cost_profile_test {

Batch batch_of(std::int64_t size) {
  return {.index = 0,
          .input = torch::empty({size, 1, 8, 8}).normal_(0, 1, test::generator(1)),
          .target = torch::randint(0, 4, {size}, test::generator(2), torch::kInt64)};
}

TEST(Profile, counts_the_operations_of_linear_layers_and_convolutions) {
  const Model wide = make_model({.model = "mlp", .classes = 4, .channels = 1, .image_size = 8, .width = 256});
  const Profile mlp = count_profile(wide, {}, batch_of(32), 1e9);
  const double products = 2.0 * 32 * 64 * 256;  // batch x in x out of the first layer
  EXPECT_GE(mlp.blocks[0].flops, products);
  EXPECT_LE(mlp.blocks[0].flops, 1.2 * products);
  const Profile resnet = count_profile(test::small_model("resnet8"), {}, batch_of(8), 1e9);
  const double convolutions = 2 * 2.0 * 8 * 8 * 8 * 4 * 4 * 9;  // two 3 x 3 convolutions of 4 channels on 8 x 8
  EXPECT_GE(resnet.blocks[1].flops, convolutions);
  EXPECT_LE(resnet.blocks[1].flops, 1.3 * convolutions);
}

/// What `compute` takes, `products` at least and little more; layers that are one call into a library as well.
void expect_flops(double products, const std::function<void()>& compute) {
  torch::NoGradGuard no_grad;
  double flops = 0;
  {
    const FlopCounter counter;
    compute();
    flops = counter.flops();
  }
  EXPECT_GE(flops, products);
  EXPECT_LE(flops, 1.35 * products);
}

TEST(FlopCounter, counts_layers_that_are_one_call_into_a_library) {
  const int batch = 4, length = 6, in = 64, hidden = 96;
  const torch::Tensor x = torch::zeros({batch, length, in});
  const double of_a_gate = 2.0 * batch * length * hidden * (in + hidden);
  {
    SCOPED_TRACE("LSTM");
    auto layer = torch::nn::LSTM(torch::nn::LSTMOptions(in, hidden).batch_first(true));
    expect_flops(4 * of_a_gate, [&] { layer(x); });
  }
  {
    SCOPED_TRACE("GRU");
    auto layer = torch::nn::GRU(torch::nn::GRUOptions(in, hidden).batch_first(true));
    expect_flops(3 * of_a_gate, [&] { layer(x); });
  }
  {
    SCOPED_TRACE("RNN");
    auto layer = torch::nn::RNN(torch::nn::RNNOptions(in, hidden).batch_first(true));
    expect_flops(of_a_gate, [&] { layer(x); });
  }
  {
    SCOPED_TRACE("attention");
    auto layer = torch::nn::MultiheadAttention(torch::nn::MultiheadAttentionOptions(in, 2));
    const double projections = 4 * 2.0 * batch * length * in * in, products = 2 * 2.0 * batch * length * length * in;
    expect_flops(projections + products, [&] { layer(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1)); });
  }
  {
    SCOPED_TRACE("matrix times vector");
    const torch::Tensor matrix = torch::zeros({64, 128}), vector = torch::zeros({128});
    expect_flops(2.0 * 64 * 128, [&] { torch::matmul(matrix, vector); });
    expect_flops(2.0 * 128, [&] { torch::dot(vector, vector); });
  }
}

TEST(Profile, counted_costs_are_the_same_every_time_and_scale_with_the_device) {
  const auto a = count_profile(test::small_model("resnet8"), {}, batch_of(4), 1e9);
  const auto b = count_profile(test::small_model("resnet8"), {}, batch_of(4), 2e9);
  for (std::size_t i = 0; i < a.blocks.size(); ++i) {
    EXPECT_DOUBLE_EQ(a.blocks[i].seconds.forward, 2 * b.blocks[i].seconds.forward);
    EXPECT_DOUBLE_EQ(a.blocks[i].seconds.backward, 2 * a.blocks[i].seconds.forward);
  }
}

TEST(Profile, measuring_gives_every_block_a_time_and_leaves_the_model_alone) {
  const Model model = test::small_model("resnet8");
  const std::string before = WeightStore(model, {}).digest();
  const Profile profile = measure_profile(model, {}, test::sgd(), batch_of(4), 3);
  for (const BlockProfile& block : profile.blocks) {
    EXPECT_GT(block.seconds.forward, 0) << block.name;
    EXPECT_GT(block.seconds.backward, 0) << block.name;
  }
  EXPECT_EQ(WeightStore(model, {}).digest(), before);
}

TEST(Profile, survives_json_and_refuses_what_is_not_one) {
  Profile profile{{{.name = "a", .parameters = 3, .activation_bytes = 8, .flops = 10, .seconds = {1, 2, 0.5}}}};
  const Profile read = profile_from_json(to_json(profile), "p.json");
  EXPECT_EQ(read.blocks[0].name, "a");
  EXPECT_EQ(read.blocks[0].seconds.update, 0.5);
  EXPECT_THROW(profile_from_json("{", "p.json"), DataError);
  EXPECT_THROW(profile_from_json("{\"blocks\": [{\"name\": \"a\"}]}", "p.json"), DataError);
  for (const std::string& text : {std::string("[]"), std::string("{\"blocks\": [[]]}"), std::string("{\"blocks\": 3}"),
                                  std::string("{\n\"a"), std::string(1'000'000, '['), std::string("{\"x\": 1e999}")}) {
    try {
      profile_from_json(text, "p.json");
      ADD_FAILURE() << text.substr(0, 20);
    } catch (const DataError& error) {
      EXPECT_EQ(std::string(error.what()).find("exception"), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find("value()"), std::string::npos) << error.what();
    }
  }
  profile.blocks[0].seconds.forward = -1;
  EXPECT_THROW(profile_from_json(to_json(profile), "p.json"), DataError);
}

}  // namespace cost_profile_test
}  // namespace rubato
