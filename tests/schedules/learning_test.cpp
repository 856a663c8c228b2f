// Every schedule lowers the loss on a small problem. How far an asynchronous one does in so many steps is a matter of timing, so
// it is asked in virtual time, where timing is always the same; on threads it is asked what no timing can change.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "rubato/core/error.h"
#include "support/fast_simulator.h"
#include "support/lab.h"

namespace rubato {
namespace schedules_learning_test {

struct Case {
  std::string schedule, runtime;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const ScheduleEntry& entry : schedules()) {
    all.push_back({entry.name, "threads"});
    if (test::has_simulator()) all.push_back({entry.name, "simulator"});
  }
  return all;
}

class LearningTest : public ::testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Runtime> runtime() {
    return GetParam().runtime == "threads" ? make_thread_runtime({})
                                           : make_simulator({.hosts = 4}, {.one_thread = test::one_thread});
  }
  static double mean(const std::vector<double>& values, std::size_t begin, std::size_t end) {
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += values[i];
    return sum / static_cast<double>(end - begin);
  }
};

TEST_P(LearningTest, takes_every_batch_and_lowers_the_loss) {
  ScheduleOptions schedule{
      .name = GetParam().schedule, .classes = 10, .values = {{"workers", 3}, {"dni-lr", 0.01}, {"dni-labels", true}}};
  if (find_schedule(schedule.name).uses_cuts) schedule.cuts = {1, 2};
  test::Lab lab(
      test::small_model("mlp"),
      {.schedule = schedule, .store = test::sgd(0.02, 0.5, 0), .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0.1})});
  const auto executor = runtime();
  // 200 gradients for every block. Where every second step is one of a part only, and chance may give all of them to one part,
  // that takes 400 steps: after 200 the loss of such a run is that of others after 100 to 133, in the middle of its steepest
  // fall.
  const std::int64_t steps = find_schedule(schedule.name).partial_steps ? 400 : 200;
  lab.run(*executor, 0, steps / 2).run(*executor, steps / 2, steps);
  const auto losses = lab.reports.losses();
  ASSERT_EQ(losses.size(), static_cast<std::size_t>(steps));
  EXPECT_TRUE(std::ranges::all_of(losses, [](double loss) { return std::isfinite(loss); }));
  Bystander me;
  for (int block = 0; block < lab.store.block_count(); ++block) {
    EXPECT_EQ(lab.store.read(me, block).parameters->clock, steps) << "block " << block;
  }
  if (GetParam().runtime == "threads" && !find_schedule(schedule.name).fixed_protocol) return;
  EXPECT_LT(mean(losses, losses.size() - 20, losses.size()), 0.5 * mean(losses, 0, 20));
}

INSTANTIATE_TEST_SUITE_P(All, LearningTest, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.schedule + "_" + info.param.runtime;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Schedules, unknown_names_and_impossible_numbers_are_refused) {
  EXPECT_THROW(find_schedule("dgg"), UsageError);
  EXPECT_THROW(check({.name = "hogwild", .values = {{"workers", 0}}}, 3), UsageError);
  EXPECT_THROW(check({.name = "pd-asgd", .values = {{"forward-threads", 0}}}, 3), UsageError);
  EXPECT_THROW(check({.name = "ddg", .cuts = {2, 2}}, 5), UsageError);
  EXPECT_THROW(check({.name = "ddg", .cuts = {5}}, 5), UsageError);
  EXPECT_NO_THROW(check({.name = "ddg", .cuts = {1, 4}}, 5));
  EXPECT_THROW(check({.name = "gpipe", .values = {{"micro-batches", 0}}}, 3), UsageError);
  EXPECT_THROW(check({.name = "lpp", .values = {{"partial-after", -1}}}, 3), UsageError);
}

}  // namespace schedules_learning_test
}  // namespace rubato
