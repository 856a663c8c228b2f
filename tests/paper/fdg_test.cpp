// Zhuang et al. 2021, "Fully Decoupled Neural Network Learning Using Delayed Gradients": one test per statement.
#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <optional>

#include "rubato/model/model.h"
#include "support/oracle.h"
#include "support/quadratic.h"

namespace rubato {
namespace paper_fdg_test {

using test::Lab;
using test::OracleModule;

/// The method written down literally, tick by tick on one thread: all modules work on what their neighbours sent in the tick
/// before, and a barrier swaps the messages.
class Oracle {
 public:
  Oracle(const Lab& lab, double shrink)
      : model_(lab.model),
        shrink_(shrink),
        modules_(test::oracle_modules(lab)),
        held_(modules_.size()),
        inbox_(modules_.size()) {}

  /// Batches 0 .. count - 1 through all modules; module k (from 1) stops after its iteration count - 1, in tick count + k - 2.
  void run(const BatchMaker& batches, int count) {
    const int last_tick = count + static_cast<int>(modules_.size()) - 2;
    for (int tick = 0; tick <= last_tick; ++tick) {
      outbox_.assign(modules_.size(), {});
      if (tick < count) {
        const Batch batch = batches.make(tick);
        inbox_[0].activation = Activation{batch.index, batch.input, batch.target};
      }
      for (std::size_t k = 0; k < modules_.size(); ++k) work(k, tick);
      inbox_ = outbox_;
    }
  }

  std::string digest() const { return test::digest_of(modules_); }
  const std::vector<int>& first_update() const { return first_update_; }

 private:
  struct Activation {
    std::int64_t batch;
    torch::Tensor output, target;
  };
  struct Inbox {
    std::optional<Activation> activation;
    torch::Tensor gradient;
  };

  void work(std::size_t k, int tick) {
    const Inbox& in = inbox_[k];
    if (!in.activation) return;
    held_[k].push_back(modules_[k].forward(in.activation->output, in.activation->batch));
    const bool top = k + 1 == modules_.size();
    torch::Tensor grad;
    if (top) {
      grad = test::gradient_of_loss(model_, held_[k].back().output, in.activation->target);
    } else {
      outbox_[k + 1].activation = Activation{in.activation->batch, held_[k].back().output.detach(), in.activation->target};
      if (in.gradient.defined()) grad = in.gradient * shrink_;
    }
    if (!grad.defined()) return;
    const torch::Tensor below = modules_[k].step(held_[k].front(), grad);
    held_[k].pop_front();
    if (k > 0) outbox_[k - 1].gradient = below;
    first_update_.resize(modules_.size(), -1);
    if (first_update_[k] < 0) first_update_[k] = tick;
  }

  const Model& model_;
  double shrink_;
  std::vector<OracleModule> modules_;
  std::vector<std::deque<OracleModule::Trip>> held_;
  std::vector<Inbox> inbox_, outbox_;
  std::vector<int> first_update_;
};

struct Case {
  const char* name;
  Model (*model)();
  std::vector<int> cuts;
  StoreOptions (*store)();
  double shrink = 1;
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
          {"norm_and_dropout_k3_shrunk", norm, {2, 4}, sgd, 0.7},
          {"norm_and_dropout_k4_adam", norm, {2, 3, 5}, adam},
          {"resnet8_k2_shrunk", resnet, {2}, sgd, 0.3},
          {"resnet8_k3", resnet, {2, 3}, sgd}};
}

class FdgTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int batches = 15;
  int stages() const { return static_cast<int>(GetParam().cuts.size()) + 1; }
  Lab lab() const {
    return Lab(GetParam().model(),
               {.schedule = {.name = "fdg", .cuts = GetParam().cuts, .values = {{"gradient-shrinking", GetParam().shrink}}},
                .store = GetParam().store()});
  }
};

TEST_P(FdgTest, equals_the_ticks_on_one_thread_bit_for_bit) {
  Lab fdg = lab();
  Oracle oracle(fdg, GetParam().shrink);
  oracle.run(*fdg.batches, batches);
  EXPECT_EQ(fdg.run_on_threads(batches).store.digest(), oracle.digest());
}

TEST_P(FdgTest, module_k_first_updates_in_tick_2K_minus_k_minus_1) {
  Lab fdg = lab();
  Oracle oracle(fdg, GetParam().shrink);
  oracle.run(*fdg.batches, batches);
  for (int k = 1; k <= stages(); ++k) {
    EXPECT_EQ(oracle.first_update()[static_cast<std::size_t>(k - 1)], 2 * stages() - k - 1);
  }
}

TEST_P(FdgTest, module_k_first_changes_in_its_iteration_2_times_K_minus_k) {
  const auto ranges = stage_ranges(GetParam().cuts, static_cast<int>(GetParam().model().blocks.size()));
  Bystander me;
  for (int iterations = 1; iterations <= 2 * stages() - 1; ++iterations) {
    Lab before = lab(), after = lab();
    after.run_on_threads(iterations);
    for (int k = 1; k <= stages(); ++k) {
      bool changed = false, has_weights = false;
      for (int block = ranges[k - 1].first; block < ranges[k - 1].last; ++block) {
        const auto old_weights = before.store.read(me, block).parameters->tensors;
        const auto new_weights = after.store.read(me, block).parameters->tensors;
        has_weights = has_weights || !old_weights.empty();
        for (std::size_t i = 0; i < old_weights.size(); ++i) changed = changed || !torch::equal(old_weights[i], new_weights[i]);
      }
      const bool due = iterations > 2 * (stages() - k);  // iteration 2 (K - k), counted from 0
      EXPECT_EQ(changed, due && has_weights) << "module " << k << " after " << iterations;
    }
  }
}

TEST_P(FdgTest, staleness_of_module_k_is_exactly_2_times_K_minus_k) {
  Lab fdg = lab();
  fdg.run_on_threads(batches);
  const auto ranges = stage_ranges(GetParam().cuts, fdg.store.block_count());
  for (int k = 1; k <= stages(); ++k) {
    const int delay = 2 * (stages() - k);
    for (int block = ranges[k - 1].first; block < ranges[k - 1].last; ++block) {
      const StalenessCount count = fdg.store.staleness(block);
      EXPECT_EQ(count.updates, batches - delay);
      EXPECT_EQ(count.max, delay);
      EXPECT_EQ(count.sum, delay * count.updates);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FdgTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

TEST(FdgStability, a_delay_of_2_times_K_minus_k_is_stable_exactly_below_the_bound) {
  for (const int stages : {2, 3}) {
    const double bound = test::largest_rate(2 * (stages - 1));
    EXPECT_LT(test::quadratic_after({.name = "fdg"}, stages, 0.98 * bound, 2500), 0.05) << "K = " << stages;
    EXPECT_GT(test::quadratic_after({.name = "fdg"}, stages, 1.02 * bound, 2500), 20) << "K = " << stages;
  }
}

// The gradient of w is w times what comes from above: 1 from the loss, times beta at each cut. So the first update of module k is
// 1 - gamma beta^(K-k).
TEST(FdgShrinking, module_k_sees_beta_to_the_power_of_K_minus_k) {
  const double rate = 0.1, beta = 0.6;
  for (int k = 1; k <= 4; ++k) {
    Lab lab = test::quadratic_lab({.name = "fdg", .values = {{"gradient-shrinking", beta}}}, 4, rate);
    lab.run_on_threads(2 * (4 - k) + 1);
    EXPECT_NEAR(test::weight_of(lab, k - 1), 1 - rate * std::pow(beta, 4 - k), 1e-6);
  }
}

TEST(FdgShrinking, a_beta_that_would_stop_or_enlarge_the_gradient_is_refused) {
  EXPECT_THROW(check({.name = "fdg", .cuts = {1}, .values = {{"gradient-shrinking", 0}}}, 3), UsageError);
  EXPECT_THROW(check({.name = "fdg", .cuts = {1}, .values = {{"gradient-shrinking", 1.5}}}, 3), UsageError);
  EXPECT_NO_THROW(check({.name = "fdg", .cuts = {1}, .values = {{"gradient-shrinking", 1}}}, 3));
}

// In a tick all modules compute at the same time: with forward 1 s and backward 2 s in each of K blocks, a batch takes 3 s, where
// serial takes 3 K s. The pipeline fills in K - 1 forward passes.
TEST(FdgTime, all_modules_work_at_the_same_time) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without the simulator";
  Lab lab(test::small_model("mlp"),
          {.schedule = {.name = "fdg", .cuts = {1, 2}}, .store = test::sgd(), .costs = std::vector<BlockCost>(3, {1, 2, 0})});
  const auto runtime = make_simulator({.hosts = 3, .link_bytes_per_second = 1e15, .link_latency_seconds = 0}, {});
  const double begin = runtime->now();
  lab.run(*runtime, 0, 40);
  EXPECT_NEAR(runtime->now() - begin, 3 * 40, 6);
}

}  // namespace paper_fdg_test
}  // namespace rubato
