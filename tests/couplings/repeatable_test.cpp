// Every schedule inside every coupling in virtual time: same seed, same bits, times and transcript; another seed, another
// transcript. The same run in time only goes as long.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "rubato/config/options.h"
#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "rubato/observe/trace.h"
#include "support/fast_simulator.h"
#include "support/forked.h"
#include "support/herd.h"

namespace rubato {
namespace couplings_repeatable_test {

using Pair = std::pair<std::string, std::string>;  // schedule, coupling

std::vector<Pair> pairs() {
  std::vector<Pair> all;
  for (const ScheduleEntry& schedule : schedules()) {
    for (const CouplingEntry& coupling : couplings()) {
      TrainOptions options;
      options.schedule = schedule.name;
      options.coupling = coupling.name;
      try {
        resolve(options);
        all.push_back({schedule.name, coupling.name});
      } catch (const UsageError&) {  // refused: see pairs_test.cpp
      }
    }
  }
  return all;
}

struct Story {
  std::string digest, times, transcript;
};

/// One host is late at random, messages take time and get lost.
Story run(const Pair& pair, std::uint64_t seed, bool dry_run) {
  ScheduleOptions schedule{.name = pair.first, .classes = 10, .values = {{"dni-lr", 0.01}, {"dni-labels", true}}};
  if (find_schedule(pair.first).uses_cuts) schedule.cuts = {1, 2};
  StoreOptions store = test::sgd(0.05, 0.5, 0);
  store.optimizer.nesterov = find_coupling(pair.second).look_ahead;
  StageOptions stage;
  const Model model = test::small_model("mlp");
  if (dry_run) {
    stage.dry_run = std::make_shared<const ActivationShapes>(activation_shapes(model, torch::zeros({2, 1, 8, 8})));
    stage.device = store.device = torch::kMeta;
  }
  test::Herd herd(model, {.schedule = schedule,
                          .coupling = {.name = pair.second,
                                       .replicas = pair.second == "none" ? 1 : 2,
                                       .period = 3,
                                       .values = {{"moving-rate", 0.15}}},
                          .store = store,
                          .stage = stage,
                          .dry_run = dry_run,
                          .costs = std::vector<BlockCost>(3, BlockCost{1e-3, 2e-3, 1e-4})});
  Trace trace;
  const SimulatedPlatform platform{.hosts = 4,
                                   .link_bytes_per_second = 125e6,
                                   .link_latency_seconds = 50e-6,
                                   .loss = 0.05,
                                   .stragglers = {{.host = 0, .kind = Straggler::Kind::random, .seconds = 2e-3}}};
  const auto runtime = make_simulator(platform, {.seed = seed, .events = &trace, .one_thread = test::one_thread});
  herd.run(*runtime, 0, 12);
  const std::string time = std::to_string(runtime->now());
  return {herd.job.digest(), time, herd.job.digest() + "\n" + time + "\n" + trace.transcript()};
}

class RepeatableTest : public ::testing::TestWithParam<Pair> {
 protected:
  void SetUp() override {
    if (!test::has_simulator()) GTEST_SKIP();
  }
  static std::string story(std::uint64_t seed) {
    return test::in_fresh_process([&] { return run(GetParam(), seed, false).transcript; });
  }
};

TEST_P(RepeatableTest, same_seed_same_story_and_another_seed_another) {
  const std::string first = story(1);
  EXPECT_GT(first.size(), 1000u);
  EXPECT_EQ(story(1), first);
  EXPECT_NE(story(2), first);
}

TEST_P(RepeatableTest, nothing_computed_takes_the_same_time) {
  const auto times = [&](bool dry_run) { return test::in_fresh_process([&] { return run(GetParam(), 1, dry_run).times; }); };
  const std::string real = times(false);
  EXPECT_GT(std::stod(real), 0.05);
  EXPECT_EQ(times(true), real);
}

INSTANTIATE_TEST_SUITE_P(All, RepeatableTest, ::testing::ValuesIn(pairs()), [](const auto& info) {
  std::string name = info.param.first + "_in_" + info.param.second;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace couplings_repeatable_test
}  // namespace rubato
