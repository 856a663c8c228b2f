#include "rubato/model/stage.h"
#include "rubato/model/model.h"

#include <cstdint>

#include <gtest/gtest.h>

#include "support/lab.h"

namespace rubato {
namespace model_stage_test {

using test::generator;

struct Bench {
  explicit Bench(Model model_, StageOptions options = {})
      : model(std::move(model_)), store(model, test::sgd()), stage(model, 0, static_cast<int>(model.blocks.size()), options) {}

  std::vector<Snapshot> weights() {
    std::vector<Snapshot> all;
    for (int i = 0; i < stage.size(); ++i) all.push_back(store.read(me, i));
    return all;
  }
  std::vector<torch::Tensor> gradients(Pass& pass) {
    torch::Tensor grad = stage.loss(pass, target).grad_output;
    std::vector<torch::Tensor> all;
    for (int local = stage.size() - 1; local >= 0; --local) {
      for (const torch::Tensor& gradient : stage.backward(pass, local, grad)) all.push_back(gradient);
    }
    return all;
  }
  void disturb_weights() {
    for (int i = 0; i < stage.size(); ++i) {
      std::vector<torch::Tensor> ones;
      for (const torch::Tensor& t : store.read(me, i).parameters->tensors) ones.push_back(torch::ones_like(t));
      store.apply(me, i, std::move(ones), 0);
    }
  }

  Bystander me;
  Model model;
  WeightStore store;
  Stage stage;
  torch::Tensor input = torch::empty({6, 1, 8, 8}).normal_(0, 1, generator(3));
  torch::Tensor target = torch::randint(0, 4, {6}, generator(4), torch::kInt64);
};

/// Gradients of a plain libtorch backward through clones of all blocks, in the order in which Bench::gradients returns them.
std::vector<torch::Tensor> plain_gradients(Bench& bench) {
  std::vector<torch::nn::AnyModule> blocks;
  torch::Tensor x = bench.input;
  for (const Block& block : bench.model.blocks) {
    blocks.push_back(block.module.clone());
    x = blocks.back().forward<torch::Tensor>(x);
  }
  bench.model.task.loss(x, bench.target).backward();
  std::vector<torch::Tensor> all;
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    for (const torch::Tensor& parameter : block->ptr()->parameters()) all.push_back(parameter.grad());
  }
  return all;
}

bool equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!torch::equal(a[i], b[i])) return false;
  }
  return true;
}

TEST(Stage, block_by_block_gradients_equal_those_of_one_plain_backward) {
  for (const char* name : {"mlp", "resnet8"}) {
    Bench bench(test::small_model(name));
    Pass pass = bench.stage.forward(bench.weights(), bench.input, 0);
    EXPECT_TRUE(equal(bench.gradients(pass), plain_gradients(bench))) << name;
  }
}

TEST(Stage, a_pass_in_flight_keeps_its_weights_while_others_are_published) {
  Bench bench(test::small_model("mlp"));
  Pass calm = bench.stage.forward(bench.weights(), bench.input, 0);
  const auto expected = bench.gradients(calm);
  Pass pass = bench.stage.forward(bench.weights(), bench.input, 0);
  bench.disturb_weights();
  Pass other = bench.stage.forward(bench.weights(), bench.input, 1);
  EXPECT_FALSE(torch::equal(other.output(), pass.output()));
  EXPECT_TRUE(equal(bench.gradients(pass), expected));
}

TEST(Stage, live_weights_change_the_error_that_goes_down_and_not_the_top_blocks_own_gradient) {
  Bench stashed(test::small_model("mlp")), live(test::small_model("mlp"), {.stale_weights = StaleWeights::live});
  Pass a = stashed.stage.forward(stashed.weights(), stashed.input, 0);
  Pass b = live.stage.forward(live.weights(), live.input, 0);
  live.disturb_weights();
  for (int local = 0; local < live.stage.size(); ++local) live.stage.rebind(b, local, live.store.read(live.me, local));
  const auto expected = stashed.gradients(a), got = live.gradients(b);
  EXPECT_TRUE(torch::equal(got[0], expected[0]));   // head: activation and loss of the forward pass
  EXPECT_FALSE(torch::equal(got[2], expected[2]));  // below: the error came through the new head
}

TEST(Stage, replaying_with_unchanged_weights_gives_the_same_gradients_with_dropout_too) {
  Bench stashed(test::norm_and_dropout_model(), {.seed = 5});
  Bench replayed(test::norm_and_dropout_model(), {.seed = 5, .stale_weights = StaleWeights::replayed});
  Pass a = stashed.stage.forward(stashed.weights(), stashed.input, 9);
  Pass b = replayed.stage.forward(replayed.weights(), replayed.input, 9);
  EXPECT_TRUE(torch::equal(a.output(), b.output()));
  replayed.stage.replay(b, replayed.weights());
  EXPECT_TRUE(equal(stashed.gradients(a), replayed.gradients(b)));
}

TEST(Stage, dropout_differs_between_batches_and_seeds) {
  const auto output = [](std::uint64_t seed, std::int64_t batch) {
    Bench bench(test::norm_and_dropout_model(), {.seed = seed});
    return bench.stage.forward(bench.weights(), bench.input, batch).output();
  };
  EXPECT_TRUE(torch::equal(output(1, 1), output(1, 1)));
  EXPECT_FALSE(torch::equal(output(1, 1), output(1, 2)));
  EXPECT_FALSE(torch::equal(output(1, 1), output(2, 1)));
}

TEST(Stage, hands_out_the_statistics_that_a_forward_pass_changed_and_leaves_the_published_ones) {
  Bench bench(test::norm_and_dropout_model());
  std::vector<std::vector<torch::Tensor>> after;
  const auto weights = bench.weights();
  const torch::Tensor before = weights[2].buffers->tensors[0].clone();
  bench.stage.forward(weights, bench.input, 0, &after);
  ASSERT_EQ(after[2].size(), 3u);
  EXPECT_FALSE(torch::equal(after[2][0], before));
  EXPECT_TRUE(torch::equal(bench.store.read(bench.me, 2).buffers->tensors[0], before));
}

TEST(Stage, two_stages_in_a_row_equal_one) {
  Model model = test::small_model("resnet8");
  const WeightStore store(model, test::sgd());
  Bystander me;
  const int blocks = static_cast<int>(model.blocks.size());
  const Stage whole(model, 0, blocks, {}), lower(model, 0, 2, {}), upper(model, 2, blocks, {});
  const auto weights = [&](const Stage& stage) {
    std::vector<Snapshot> all;
    for (int i = stage.first(); i < stage.last(); ++i) all.push_back(store.read(me, i));
    return all;
  };
  const torch::Tensor input = torch::empty({3, 1, 8, 8}).normal_(0, 1, generator(3));
  const Pass all = whole.forward(weights(whole), input, 0);
  const Pass below = lower.forward(weights(lower), input, 0);
  EXPECT_TRUE(torch::equal(upper.forward(weights(upper), below.output(), 0).output(), all.output()));
}

TEST(Stage, bf16_computes_in_bfloat16_and_returns_float_gradients) {
  Bench bench(test::small_model("mlp"), {.bf16 = true});
  Pass pass = bench.stage.forward(bench.weights(), bench.input, 0);
  EXPECT_EQ(pass.output().scalar_type(), torch::kBFloat16);
  for (const torch::Tensor& gradient : bench.gradients(pass)) EXPECT_EQ(gradient.scalar_type(), torch::kFloat32);
}

}  // namespace model_stage_test
}  // namespace rubato
