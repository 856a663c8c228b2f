#include <gtest/gtest.h>

#include <cstdint>
#include <set>

#include "rubato/model/model.h"
#include "rubato/observe/trace.h"
#include "support/lab.h"

namespace rubato {
namespace schedules_lpp_test {

using test::Lab;

Lab lab(int workers, std::int64_t partial_after = 0, Publish publish = Publish::block,
        StaleWeights stale = StaleWeights::stashed) {
  return Lab(test::small_model("mlp", 1, 0.3),
             {.schedule = {.name = "lpp", .publish = publish, .values = {{"workers", workers}, {"partial-after", partial_after}}},
              .store = test::sgd(0.02),
              .stage = {.stale_weights = stale},
              .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})});
}

std::string serial_digest(Model model) {
  Lab serial(std::move(model), {.schedule = {.name = "serial"}, .store = test::sgd(0.02)});
  return serial.run_on_threads(13).store.digest();
}

TEST(Lpp, one_worker_whose_part_is_the_whole_model_is_serial_bit_for_bit) {
  const std::string expected = serial_digest(test::small_model("mlp", 1, 0.3));
  EXPECT_EQ(lab(1).run_on_threads(13).store.digest(), expected);
  EXPECT_EQ(lab(1, 5).run_on_threads(13).store.digest(), expected);
  EXPECT_EQ(lab(1, 0, Publish::model).run_on_threads(13).store.digest(), expected);
  EXPECT_EQ(lab(1, 0, Publish::block, StaleWeights::live).run_on_threads(13).store.digest(), expected);
  EXPECT_EQ(lab(1, 0, Publish::block, StaleWeights::replayed).run_on_threads(13).store.digest(), expected);
  Lab norm(test::norm_and_dropout_model(), {.schedule = {.name = "lpp", .values = {{"workers", 1}}}, .store = test::sgd(0.02)});
  EXPECT_EQ(norm.run_on_threads(13).store.digest(), serial_digest(test::norm_and_dropout_model()));
}

/// What the steps of one worker changed: for each batch the blocks that got a gradient, as events tell.
std::vector<std::set<int>> blocks_with_gradients(Lab& lab, int batches, const std::string& worker) {
  Trace trace;
  lab.run(*make_simulator({.hosts = 4}, {.events = &trace}), 0, batches);
  std::vector<std::set<int>> steps;
  for (const Trace::Entry& entry : trace.entries()) {
    if (entry.role != worker) continue;
    if (entry.event.kind == EventKind::take_batch && entry.event.batch >= 0) steps.emplace_back();
    if (entry.event.kind == EventKind::publish && entry.event.batch >= 0) steps.back().insert(entry.event.block);
  }
  return steps;
}

TEST(Lpp, workers_alternate_between_the_whole_model_and_their_own_part) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  const std::set<int> all = {0, 1, 2};
  for (int i = 0; i < 3; ++i) {  // three blocks with parameters, three workers: worker i has block i
    Lab three = lab(3);
    const auto steps = blocks_with_gradients(three, 24, "worker-" + std::to_string(i));
    ASSERT_GE(steps.size(), 6u);
    for (std::size_t s = 0; s < steps.size(); ++s) EXPECT_EQ(steps[s], s % 2 == 0 ? all : std::set<int>{i}) << s;
  }
}

TEST(Lpp, is_hogwild_until_partial_gradients_begin) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  const auto digest = [](ScheduleOptions schedule, int batches) {
    Lab lab(test::small_model("mlp"),
            {.schedule = std::move(schedule), .store = test::sgd(), .costs = {{1, 2, 0}, {1, 2, 0}, {1, 2, 0}}});
    return lab.run(*make_simulator({.hosts = 2}, {}), 0, batches).store.digest();
  };
  EXPECT_EQ(digest({.name = "lpp", .values = {{"partial-after", 20}}}, 20), digest({.name = "hogwild"}, 20));
  EXPECT_NE(digest({.name = "lpp", .values = {{"partial-after", 14}}}, 20), digest({.name = "hogwild"}, 20));
}

std::vector<std::vector<torch::Tensor>> weights_of(const Lab& lab) {
  Bystander me;
  std::vector<std::vector<torch::Tensor>> all;
  for (int block = 0; block < lab.store.block_count(); ++block) all.push_back(lab.store.read(me, block).parameters->tensors);
  return all;
}

// Two workers on three blocks of 1040, 272 and 68 parameters: parts {0} and {1, 2}. In virtual time worker 0 comes first.
TEST(Lpp, a_partial_step_changes_only_the_blocks_of_its_part) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  Lab two = lab(2);
  const auto runtime = make_simulator({.hosts = 2}, {});
  two.run(*runtime, 0, 2);  // a whole gradient of each worker
  const auto before = weights_of(two);
  two.run(*runtime, 2, 3);
  const auto after = weights_of(two);
  for (std::size_t block = 0; block < before.size(); ++block) {
    for (std::size_t i = 0; i < before[block].size(); ++i) {
      EXPECT_EQ(!torch::equal(before[block][i], after[block][i]), block == 0) << block << "," << i;
    }
  }
}

// The lower part's gradient must not feel that less is computed above it, nor the upper part's that nothing is below.
TEST(Lpp, a_part_gets_the_gradient_that_the_whole_model_would_give_it) {
  const Model model = test::small_model("resnet8");
  const Stage stage(model, 0, static_cast<int>(model.blocks.size()), {});
  const WeightStore store(model, test::sgd());
  Bystander me;
  std::vector<Snapshot> weights;
  for (int block = 0; block < stage.last(); ++block) weights.push_back(store.read(me, block));
  const torch::Tensor input = torch::linspace(-1, 1, 2 * 64).reshape({2, 1, 8, 8}), target = torch::tensor({1, 3});
  const auto gradients = [&](BlockRange part) {
    Pass pass = stage.forward(weights, input, 0);
    torch::Tensor grad = stage.loss(pass, target).grad_output;
    std::vector<std::vector<torch::Tensor>> all(model.blocks.size());
    for (int block = stage.last() - 1; block >= part.first; --block) {
      const Wanted wanted = block >= part.last ? Wanted::input : block == part.first ? Wanted::parameters : Wanted::both;
      all[static_cast<std::size_t>(block)] = stage.backward(pass, block, grad, wanted);
    }
    EXPECT_FALSE(grad.defined());
    return all;
  };
  const auto whole = gradients({0, stage.last()});
  for (const BlockRange part : {BlockRange{1, 3}, BlockRange{0, 2}, BlockRange{2, 5}}) {
    const auto partial = gradients(part);
    for (int block = part.first; block < part.last; ++block) {
      const auto at = static_cast<std::size_t>(block);
      for (std::size_t i = 0; i < whole[at].size(); ++i) EXPECT_TRUE(torch::equal(whole[at][i], partial[at][i])) << block;
    }
    for (int block = part.last; block < stage.last(); ++block) {
      for (const torch::Tensor& gradient : partial[static_cast<std::size_t>(block)]) EXPECT_FALSE(gradient.defined());
    }
  }
}

// On threads one worker may take all batches before the others have begun.
TEST(Lpp, every_block_counts_every_batch_so_that_learning_rates_follow_the_run) {
  for (const bool simulated : {false, true}) {
    if (simulated && !test::has_simulator()) continue;
    Lab three = lab(3);
    three.run(*(simulated ? make_simulator({.hosts = 3}, {}) : make_thread_runtime({})), 0, 30);
    Bystander me;
    for (int block = 0; block < 3; ++block) {
      EXPECT_EQ(three.store.read(me, block).parameters->clock, 30);
      EXPECT_LE(three.store.staleness(block).updates, simulated ? 29 : 30);
      EXPECT_GE(three.store.staleness(block).updates, 15);
    }
  }
}

TEST(Lpp, a_partial_gradient_takes_less_time) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  const auto seconds = [](std::int64_t partial_after) {
    Lab two = lab(2, partial_after);
    const auto runtime = make_simulator({.hosts = 2}, {});
    two.run(*runtime, 0, 40);
    return runtime->now();
  };
  const double hogwild = seconds(40), lpp = seconds(0);
  EXPECT_NEAR(hogwild, 20 * 9, 1e-3);
  // Every other batch saves: the lower part (block 0) half of the backward of blocks 1 and 2, 2 s; the upper part all of block
  // 0's, 2 s.
  EXPECT_NEAR(lpp, 20 * 9 - 10 * 2, 1e-3);
}

TEST(Lpp, staleness_is_that_of_the_other_workers) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  Lab three = lab(3);
  three.run(*make_simulator({.hosts = 3}, {}), 0, 60);
  for (int block = 0; block < 3; ++block) {
    EXPECT_GT(three.store.staleness(block).mean(), 1);
    EXPECT_LE(three.store.staleness(block).mean(), 2.5);
  }
}

TEST(Lpp, more_workers_than_blocks_with_parameters_are_refused) {
  EXPECT_THROW(lab(4), UsageError);
  try {
    // flatten, wide, norm, act, drop, head: three of them have parameters
    Lab(test::norm_and_dropout_model(), {.schedule = {.name = "lpp", .values = {{"workers", 4}}}});
    FAIL() << "not refused";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("only 3 blocks have parameters; use at most 3 workers"), std::string::npos)
        << error.what();
  }
}

}  // namespace schedules_lpp_test
}  // namespace rubato
