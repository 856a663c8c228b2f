// Huo, Gu, Huang 2018, "Training Neural Networks Using Features Replay": one test per statement.
#include <gtest/gtest.h>

#include <cstdint>
#include <deque>

#include "rubato/model/model.h"
#include "support/oracle.h"

namespace rubato {
namespace paper_features_replay_test {

using test::Lab;
using test::OracleModule;

/// The algorithm written down literally, on one thread: at iteration t every module forwards batch t, then takes the input of
/// batch t - (K - k) out of its queue, computes it again with w_k(t), and goes back with what the module above sent at iteration
/// t - 1.
class Oracle {
 public:
  explicit Oracle(const Lab& lab) : model_(lab.model), modules_(test::oracle_modules(lab)), queues_(modules_.size()) {}

  void iterate(const Batch& batch) {
    torch::Tensor h = batch.input;
    for (std::size_t k = 0; k < modules_.size(); ++k) {
      queues_[k].push_back({batch.index, h});
      h = modules_[k].forward(h, batch.index).output.detach();
    }
    largest_queue_ = std::max(largest_queue_, queues_.front().size());
    std::vector<torch::Tensor> sent(modules_.size());
    for (std::size_t k = 0; k < modules_.size(); ++k) {
      const std::size_t delay = modules_.size() - 1 - k;
      if (queues_[k].size() <= delay) continue;
      const auto [index, input] = queues_[k].front();
      queues_[k].pop_front();
      const OracleModule::Trip replay = modules_[k].forward(input, index, /*keep_statistics=*/false);
      const torch::Tensor grad = delay == 0 ? test::gradient_of_loss(model_, replay.output, batch.target) : arrived_[k];
      torch::Tensor below = modules_[k].step(replay, grad);
      if (k > 0) sent[k - 1] = below;
    }
    arrived_ = sent;
  }

  std::string digest() const { return test::digest_of(modules_); }
  std::size_t largest_queue() const { return largest_queue_; }

 private:
  const Model& model_;
  std::vector<OracleModule> modules_;
  std::vector<std::deque<std::pair<std::int64_t, torch::Tensor>>> queues_;
  std::vector<torch::Tensor> arrived_;
  std::size_t largest_queue_ = 0;
};

struct Case {
  const char* name;
  Model (*model)();
  std::vector<int> cuts;
  StoreOptions (*store)();
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

std::vector<Case> cases() {
  const auto norm = [] { return test::norm_and_dropout_model(); };
  const auto resnet = [] { return test::small_model("resnet8"); };
  const auto sgd = [] { return test::sgd(); };
  const auto adam = [] { return test::adam(); };
  return {{"norm_and_dropout_k2", norm, {3}, sgd},
          {"norm_and_dropout_k3_adam", norm, {2, 4}, adam},
          {"resnet8_k2", resnet, {2}, sgd},
          {"resnet8_k3", resnet, {2, 3}, sgd}};
}

class FeaturesReplayTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int batches = 15;
  Lab lab(const char* schedule = "features-replay", StaleWeights stale = StaleWeights::stashed) const {
    return Lab(GetParam().model(), {.schedule = {.name = schedule, .cuts = GetParam().cuts},
                                    .store = GetParam().store(),
                                    .stage = {.stale_weights = stale}});
  }
};

TEST_P(FeaturesReplayTest, equals_the_algorithm_on_one_thread_bit_for_bit) {
  Lab replay = lab();
  Oracle oracle(replay);
  for (int t = 0; t < batches; ++t) oracle.iterate(replay.batches->make(t));
  EXPECT_EQ(replay.run_on_threads(batches).store.digest(), oracle.digest());
  EXPECT_EQ(oracle.largest_queue(), GetParam().cuts.size() + 1) << "module k keeps K - k + 1 inputs";
}

TEST_P(FeaturesReplayTest, is_ddg_with_replayed_weights) {
  EXPECT_EQ(lab().run_on_threads(batches).store.digest(),
            lab("ddg", StaleWeights::replayed).run_on_threads(batches).store.digest());
}

TEST_P(FeaturesReplayTest, differs_from_ddg_which_goes_back_with_the_weights_of_the_forward_pass) {
  EXPECT_NE(lab().run_on_threads(batches).store.digest(), lab("ddg").run_on_threads(batches).store.digest());
}

TEST_P(FeaturesReplayTest, gradients_are_evaluated_at_the_newest_weights) {
  Lab replay = lab();
  replay.run_on_threads(batches);
  const auto stages = stage_ranges(GetParam().cuts, replay.store.block_count());
  for (std::size_t k = 0; k < stages.size(); ++k) {
    for (int block = stages[k].first; block < stages[k].last; ++block) {
      EXPECT_EQ(replay.store.staleness(block).max, 0);
      EXPECT_EQ(replay.store.staleness(block).updates, batches - static_cast<int>(stages.size() - 1 - k));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FeaturesReplayTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

TEST(FeaturesReplay, a_pass_that_waits_keeps_its_input_and_nothing_else) {
  const Model model = test::small_model("mlp");
  WeightStore store(model, test::sgd());
  const Stage stage(model, 0, 1, {.stale_weights = StaleWeights::replayed});
  Bystander me;
  Snapshot weights = store.read(me, 0);
  const std::weak_ptr<const TensorSet> watched = weights.parameters;
  const torch::Tensor input = torch::ones({2, 1, 8, 8});
  Pass pass = stage.forward({std::move(weights)}, input, 0);
  store.update(me, 0, "zeros", [](const TensorSet&, std::vector<torch::Tensor>& next) {
    for (torch::Tensor& tensor : next) tensor.zero_();
  });
  EXPECT_TRUE(watched.expired()) << "the weights of the forward pass are not needed any more";
  pass.forget_output();
  EXPECT_TRUE(pass.input().is_same(input));
  EXPECT_FALSE(pass.output().defined());
}

}  // namespace paper_features_replay_test
}  // namespace rubato
