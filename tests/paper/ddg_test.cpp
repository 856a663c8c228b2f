// Huo et al. 2018, "Decoupled Parallel Backpropagation with Convergence Guarantee": one test per statement.
#include <gtest/gtest.h>

#include <cstdint>
#include <deque>

#include "rubato/model/digest.h"
#include "rubato/model/dropout.h"
#include "rubato/model/model.h"
#include "support/lab.h"
#include "support/quadratic.h"

namespace rubato {
namespace paper_ddg_test {

using test::Lab;

/// Equation (9) written down literally, in plain libtorch on one thread: at iteration t the whole gradient of batch t is taken at
/// w(t); module k applies the one of batch t - (K - k), or nothing when there is none yet.
class Oracle {
 public:
  Oracle(const Model& model, std::vector<int> cuts, const StoreOptions& store, std::uint64_t seed)
      : loss_(model.task.loss), seed_(seed) {
    cuts.push_back(static_cast<int>(model.blocks.size()));
    int first = 0;
    for (std::size_t k = 0; k < cuts.size(); ++k) {
      Module module{.delay = cuts.size() - 1 - k};
      for (; first < cuts[k]; ++first) {
        blocks_.push_back(model.blocks[first].module.clone());
        names_.push_back(model.blocks[first].name);
        for (const torch::Tensor& parameter : blocks_.back().ptr()->parameters()) module.parameters.push_back(parameter);
      }
      if (!module.parameters.empty()) module.optimizer = make_optimizer(store.optimizer, module.parameters);
      modules_.push_back(std::move(module));
    }
  }

  void iterate(const Batch& batch) {
    torch::Tensor x = batch.input;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const PassKeyScope random({seed_, static_cast<std::uint64_t>(batch.index), i});
      x = blocks_[i].forward<torch::Tensor>(x);
    }
    loss_(x, batch.target).backward();
    for (Module& module : modules_) {
      std::vector<torch::Tensor> gradients;
      for (torch::Tensor& parameter : module.parameters) {
        gradients.push_back(parameter.grad().clone());
        parameter.mutable_grad().reset();
      }
      module.waiting.push_back(std::move(gradients));
    }
    for (Module& module : modules_) module.apply_delayed();
  }

  std::string digest() const {
    Digest digest;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      for (const auto& item : blocks_[i].ptr()->named_parameters()) digest.add(names_[i] + "." + item.key(), item.value());
      for (const auto& item : blocks_[i].ptr()->named_buffers()) digest.add(names_[i] + "." + item.key(), item.value());
    }
    return digest.hex();
  }

 private:
  struct Module {
    std::size_t delay;
    std::vector<torch::Tensor> parameters;
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    std::deque<std::vector<torch::Tensor>> waiting;

    void apply_delayed() {
      if (waiting.size() <= delay) return;
      for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].mutable_grad() = waiting.front()[i];
      waiting.pop_front();
      if (optimizer) optimizer->step();
      for (torch::Tensor& parameter : parameters) parameter.mutable_grad().reset();
    }
  };

  LossFunction loss_;
  std::uint64_t seed_;
  std::vector<torch::nn::AnyModule> blocks_;
  std::vector<std::string> names_;
  std::vector<Module> modules_;
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
          {"norm_and_dropout_k3", norm, {2, 4}, sgd},
          {"norm_and_dropout_k4_adam", norm, {2, 3, 5}, adam},
          {"resnet8_k2_adam", resnet, {2}, adam},
          {"resnet8_k3", resnet, {2, 3}, sgd},
          {"resnet8_k4", resnet, {1, 2, 3}, sgd}};
}

class DdgOracleTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int batches = 15;
  Lab lab() const {
    return Lab(GetParam().model(), {.schedule = {.name = "ddg", .cuts = GetParam().cuts}, .store = GetParam().store()});
  }
};

TEST_P(DdgOracleTest, equals_the_delayed_update_rule_bit_for_bit) {
  Lab ddg = lab();
  Oracle oracle(ddg.model, GetParam().cuts, GetParam().store(), ddg.options.stage.seed);
  for (int t = 0; t < batches; ++t) oracle.iterate(ddg.batches->make(t));
  EXPECT_EQ(ddg.run_on_threads(batches).store.digest(), oracle.digest());
}

TEST_P(DdgOracleTest, random_delays_in_the_threads_change_nothing) {
  Lab calm = lab();
  const std::string expected = calm.run_on_threads(batches).store.digest();
  RuntimeOptions jittery{.seed = 3};
  for (std::size_t k = 0; k <= GetParam().cuts.size(); ++k) jittery.delays.push_back({"ddg-" + std::to_string(k), 0, 2});
  EXPECT_EQ(lab().run_on_threads(batches, jittery).store.digest(), expected);
}

TEST_P(DdgOracleTest, cutting_the_run_into_segments_changes_nothing) {
  Lab whole = lab(), parts = lab();
  const auto runtime = make_thread_runtime({});
  parts.run(*runtime, 0, 1).run(*runtime, 1, 3).run(*runtime, 3, 4).run(*runtime, 4, batches);
  EXPECT_EQ(parts.store.digest(), whole.run_on_threads(batches).store.digest());
}

TEST_P(DdgOracleTest, virtual_time_gives_the_same_bits) {
  Lab threads = lab(), simulated = lab();
  simulated.replica.costs.assign(simulated.model.blocks.size(), BlockCost{0.5, 1, 0.1});
  simulated.run(*make_simulator({.hosts = 4}, {}), 0, batches);
  EXPECT_EQ(simulated.store.digest(), threads.run_on_threads(batches).store.digest());
}

TEST_P(DdgOracleTest, staleness_of_module_k_is_exactly_K_minus_k) {
  Lab ddg = lab();
  ddg.run_on_threads(batches);
  int stage = 0;
  for (int block = 0; block < ddg.store.block_count(); ++block) {
    while (stage < static_cast<int>(GetParam().cuts.size()) && block >= GetParam().cuts[stage]) ++stage;
    const int delay = static_cast<int>(GetParam().cuts.size()) - stage;
    const StalenessCount count = ddg.store.staleness(block);
    EXPECT_EQ(count.max, delay);
    EXPECT_EQ(count.sum, delay * count.updates);
    EXPECT_EQ(count.updates, batches - delay);
  }
}

TEST_P(DdgOracleTest, module_k_first_changes_at_iteration_K_minus_k) {
  const int stages = static_cast<int>(GetParam().cuts.size()) + 1;
  for (int iterations = 1; iterations <= stages; ++iterations) {
    Lab before = lab(), after = lab();
    after.run_on_threads(iterations);
    Bystander me;
    int stage = 0;
    for (int block = 0; block < after.store.block_count(); ++block) {
      while (stage < stages - 1 && block >= GetParam().cuts[stage]) ++stage;
      const auto old_weights = before.store.read(me, block).parameters->tensors;
      const auto new_weights = after.store.read(me, block).parameters->tensors;
      for (std::size_t i = 0; i < old_weights.size(); ++i) {
        const bool changed = !torch::equal(old_weights[i], new_weights[i]);
        const bool due = iterations > stages - 1 - stage;  // iteration K - k is number K - k + 1
        const bool matters = changed || i == 0;            // a bias may rest at zero, the first weight never does
        EXPECT_TRUE(!matters || changed == due) << "block " << block << " after " << iterations;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DdgOracleTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

TEST(DdgStability, a_delay_of_D_is_stable_exactly_below_2_sin_of_pi_over_2_times_2D_plus_1) {
  for (const int delay : {1, 2, 3}) {
    const double bound = test::largest_rate(delay);
    EXPECT_LT(test::quadratic_after({.name = "ddg"}, delay + 1, 0.98 * bound, 1500), 0.05) << "D = " << delay;
    EXPECT_GT(test::quadratic_after({.name = "ddg"}, delay + 1, 1.02 * bound, 1500), 20) << "D = " << delay;
  }
}

}  // namespace paper_ddg_test
}  // namespace rubato
