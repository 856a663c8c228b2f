// The three meanings of a delayed backward pass, and where the reference says that they must agree.
#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/model/model.h"
#include "support/lab.h"

namespace rubato {
namespace paper_stale_weights_test {

using test::Lab;

/// `layers` linear layers; ReLU (and batch norm) between them where asked, in the same module as the layer below.
Model chain(int layers, bool nonlinear) {
  torch::nn::Sequential sequential;
  sequential->push_back("flatten", torch::nn::AnyModule(torch::nn::Flatten()));
  for (int i = 0; i < layers; ++i) {
    const int in = i == 0 ? 64 : 6, out = i + 1 == layers ? 4 : 6;
    torch::nn::Linear linear(in, out);
    torch::NoGradGuard no_grad;
    linear->weight.normal_(0, 0.3, test::generator(static_cast<std::uint64_t>(10 + i)));
    linear->bias.zero_();
    sequential->push_back("linear" + std::to_string(i), torch::nn::AnyModule(linear));
    if (nonlinear && i + 1 < layers) {
      sequential->push_back("tanh" + std::to_string(i), torch::nn::AnyModule(torch::nn::Tanh()));
    }
  }
  return model_from(sequential);
}

std::string digest(const Model& model, const std::vector<int>& cuts, StaleWeights stale) {
  Lab lab(model, {.schedule = {.name = "ddg", .cuts = cuts}, .store = test::sgd(0.2), .stage = {.stale_weights = stale}});
  return lab.run_on_threads(20).store.digest();
}

struct Digests {
  Digests(const Model& model, const std::vector<int>& cuts)
      : stashed(digest(model, cuts, StaleWeights::stashed)),
        live(digest(model, cuts, StaleWeights::live)),
        replayed(digest(model, cuts, StaleWeights::replayed)) {}
  std::string stashed, live, replayed;
};

TEST(StaleWeights, all_agree_with_one_stage) {
  const Digests d(chain(3, true), {});
  EXPECT_EQ(d.stashed, d.live);
  EXPECT_EQ(d.stashed, d.replayed);
}

TEST(StaleWeights, all_agree_with_two_stages_of_one_linear_layer_each) {
  const Digests d(chain(2, false), {2});
  EXPECT_EQ(d.stashed, d.live);
  EXPECT_EQ(d.stashed, d.replayed);
}

TEST(StaleWeights, live_and_replayed_agree_with_one_linear_layer_per_stage_and_stashed_differs) {
  for (const std::vector<int>& cuts : {std::vector<int>{2, 3}, std::vector<int>{2, 3, 4}}) {
    const Digests d(chain(static_cast<int>(cuts.size()) + 1, false), cuts);
    EXPECT_EQ(d.live, d.replayed);
    EXPECT_NE(d.stashed, d.live);
  }
}

TEST(StaleWeights, all_differ_with_several_layers_and_a_nonlinearity_per_stage) {
  const Digests d(chain(4, true), {4});  // flatten linear tanh linear | tanh linear tanh linear
  EXPECT_NE(d.stashed, d.live);
  EXPECT_NE(d.stashed, d.replayed);
  EXPECT_NE(d.live, d.replayed);
}

TEST(StaleWeights, replayed_gradients_are_evaluated_at_the_newest_weights) {
  Lab lab(
      chain(4, true),
      {.schedule = {.name = "ddg", .cuts = {4}}, .store = test::sgd(0.1), .stage = {.stale_weights = StaleWeights::replayed}});
  lab.run_on_threads(10);
  for (int block = 0; block < lab.store.block_count(); ++block) EXPECT_EQ(lab.store.staleness(block).max, 0);
}

}  // namespace paper_stale_weights_test
}  // namespace rubato
