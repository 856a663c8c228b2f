// What every schedule with stages and a fixed protocol owes: the same bits whatever the timing, the runtime, the segments, and
// whether the run was stopped and resumed.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "rubato/model/model.h"
#include "support/lab.h"

namespace rubato {
namespace schedules_staged_test {

using test::Lab;

struct Case {
  const char* name;
  const char* role;
  ScheduleOptions schedule;
  Model (*model)();
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
  const OptionValues labels{{"dni-width", 16}, {"dni-labels", true}};
  return {{"features_replay_norm_and_dropout", "fr", {.name = "features-replay", .cuts = {2, 4}}, norm, sgd},
          {"features_replay_resnet8", "fr", {.name = "features-replay", .cuts = {1, 2, 3}}, resnet, adam},
          {"fdg_norm_and_dropout", "fdg", {.name = "fdg", .cuts = {2, 4}, .values = {{"gradient-shrinking", 0.7}}}, norm, adam},
          {"fdg_resnet8", "fdg", {.name = "fdg", .cuts = {1, 2, 3}}, resnet, sgd},
          {"dni_norm_and_dropout", "dni", {.name = "dni", .cuts = {2, 4}, .classes = 4, .values = labels}, norm, sgd},
          {"dni_resnet8", "dni", {.name = "dni", .cuts = {1, 2, 3}}, resnet, sgd}};
}

template <class T>
std::string saved(const T& what) {
  torch::serialize::OutputArchive archive;
  what.save(archive);
  std::ostringstream text;
  archive.save_to(text);
  return text.str();
}

template <class T>
void restore(T& what, const std::string& text) {
  std::istringstream stream(text);
  torch::serialize::InputArchive archive;
  archive.load_from(stream);
  what.load(archive);
}

class StagedTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int batches = 15;
  Lab lab() const { return Lab(GetParam().model(), {.schedule = GetParam().schedule, .store = GetParam().store()}); }
};

TEST_P(StagedTest, random_delays_in_the_threads_change_nothing) {
  Lab calm = lab();
  const std::string expected = calm.run_on_threads(batches).store.digest();
  RuntimeOptions jittery{.seed = 3};
  for (std::size_t k = 0; k <= GetParam().schedule.cuts.size(); ++k) {
    jittery.delays.push_back({GetParam().role + ("-" + std::to_string(k)), 0, 2});
  }
  EXPECT_EQ(lab().run_on_threads(batches, jittery).store.digest(), expected);
}

TEST_P(StagedTest, virtual_time_gives_the_same_bits) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without the simulator";
  Lab threads = lab(), simulated = lab();
  simulated.replica.costs.assign(simulated.model.blocks.size(), BlockCost{0.5, 1, 0.1});
  simulated.run(*make_simulator({.hosts = 4}, {}), 0, batches);
  EXPECT_EQ(simulated.store.digest(), threads.run_on_threads(batches).store.digest());
}

TEST_P(StagedTest, cutting_the_run_into_segments_changes_nothing) {
  Lab whole = lab(), parts = lab();
  const auto runtime = make_thread_runtime({});
  parts.run(*runtime, 0, 1)
      .run(*runtime, 1, 1)
      .run(*runtime, 1, 3)
      .run(*runtime, 3, 4)
      .run(*runtime, 4, 9)
      .run(*runtime, 9, batches);
  EXPECT_EQ(parts.store.digest(), whole.run_on_threads(batches).store.digest());
}

TEST_P(StagedTest, a_resumed_run_goes_on_bit_for_bit) {
  Lab whole = lab();
  const std::string expected = whole.run_on_threads(batches).store.digest();
  for (const int stop : {0, 1, 2, 5, 8}) {
    Lab first = lab(), second = lab();
    if (stop > 0) first.run_on_threads(stop);
    restore(second.store, saved(first.store));
    restore(*second.schedule, saved(*first.schedule));
    second.run(*make_thread_runtime({}), stop, batches);
    EXPECT_EQ(second.store.digest(), expected) << "stopped after " << stop;
  }
}

TEST_P(StagedTest, names_of_roles_carry_the_prefix_of_the_replica) {
  Lab lab = this->lab();
  lab.replica.prefix = "r1/";
  const auto schedule = make_schedule(lab.replica, GetParam().schedule);
  const auto roles = schedule->roles();
  ASSERT_EQ(roles.size(), GetParam().schedule.cuts.size() + 1);
  for (std::size_t k = 0; k < roles.size(); ++k) {
    EXPECT_EQ(roles[k].name, "r1/" + std::string(GetParam().role) + "-" + std::to_string(k));
    EXPECT_EQ(roles[k].device, static_cast<int>(k));
  }
}

INSTANTIATE_TEST_SUITE_P(All, StagedTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

/// Through the library, where nobody has looked at them before.
TEST(CutsOutOfRange, are_refused_with_the_range) {
  for (const char* name : {"ddg", "features-replay", "fdg", "dni", "gpipe", "1f1b"}) {
    for (const std::vector<int>& cuts : std::vector<std::vector<int>>{{0}, {-1}, {6}, {9}, {2, 2}, {3, 2}, {1, 2, 3, 4, 5, 6}}) {
      try {
        Lab(test::norm_and_dropout_model(), {.schedule = {.name = name, .cuts = cuts}, .store = test::sgd()});
        ADD_FAILURE() << name << " takes " << testing::PrintToString(cuts);
      } catch (const UsageError& error) {
        EXPECT_NE(std::string(error.what()).find("1 .. 5"), std::string::npos) << error.what();
      }
    }
  }
  const Model model = test::norm_and_dropout_model();
  for (const auto& [first, last] : std::vector<std::pair<int, int>>{{-1, 2}, {3, 7}, {4, 2}, {7, 9}}) {
    EXPECT_THROW(Stage(model, first, last, {}), UsageError) << first << " " << last;
  }
}

}  // namespace schedules_staged_test
}  // namespace rubato
