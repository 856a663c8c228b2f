// Limits that every schedule must meet bit for bit: what it is when its freedom is taken away.
#include <gtest/gtest.h>

#include "support/lab.h"

namespace rubato {
namespace schedules_limits_test {

using test::Lab;

struct Case {
  const char* name;
  Model (*model)();
  StoreOptions (*store)();
};

void PrintTo(const Case& row, std::ostream* out) {
  *out << row.name;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"mlp_sgd", [] { return test::small_model("mlp", 1, 0.3); }, [] { return test::sgd(); }},
      {"mlp_adam", [] { return test::small_model("mlp", 1, 0.3); }, [] { return test::adam(); }},
      {"norm_and_dropout_sgd", [] { return test::norm_and_dropout_model(); }, [] { return test::sgd(); }},
      {"resnet8_sgd", [] { return test::small_model("resnet8"); }, [] { return test::sgd(); }},
  };
  return all;
}

class LimitsTest : public ::testing::TestWithParam<Case> {
 protected:
  std::string digest(ScheduleOptions schedule, StaleWeights stale = StaleWeights::stashed) {
    Lab lab(GetParam().model(), {.schedule = schedule, .store = GetParam().store(), .stage = {.stale_weights = stale}});
    return lab.run_on_threads(12).store.digest();
  }
};

TEST_P(LimitsTest, ddg_with_one_stage_is_serial) {
  EXPECT_EQ(digest({.name = "ddg"}), digest({.name = "serial"}));
}

TEST_P(LimitsTest, features_replay_with_one_stage_is_serial) {
  EXPECT_EQ(digest({.name = "features-replay"}), digest({.name = "serial"}));
}

TEST_P(LimitsTest, fdg_with_one_stage_is_serial) {
  EXPECT_EQ(digest({.name = "fdg", .values = {{"gradient-shrinking", 0.5}}}), digest({.name = "serial"}));
}

TEST_P(LimitsTest, dni_with_one_stage_is_serial) {
  EXPECT_EQ(digest({.name = "dni"}), digest({.name = "serial"}));
}

TEST_P(LimitsTest, pd_asgd_with_one_pass_in_flight_is_serial) {
  EXPECT_EQ(digest({.name = "pd-asgd", .values = {{"forward-threads", 1}, {"backward-threads", 1}, {"max-in-flight", 1}}}),
            digest({.name = "serial"}));
}

TEST_P(LimitsTest, hogwild_with_one_worker_is_serial) {
  EXPECT_EQ(digest({.name = "hogwild", .values = {{"workers", 1}}}), digest({.name = "serial"}));
}

TEST_P(LimitsTest, serial_does_not_care_when_it_publishes_nor_what_stale_weights_mean) {
  const std::string serial = digest({.name = "serial"});
  EXPECT_EQ(digest({.name = "serial", .publish = Publish::model}), serial);
  EXPECT_EQ(digest({.name = "serial"}, StaleWeights::live), serial);
}

TEST_P(LimitsTest, serial_is_never_stale) {
  Lab lab(GetParam().model(), {.schedule = {.name = "serial"}, .store = GetParam().store()});
  lab.run_on_threads(12);
  for (int block = 0; block < lab.store.block_count(); ++block) {
    EXPECT_EQ(lab.store.staleness(block).max, 0);
    EXPECT_EQ(lab.store.staleness(block).updates, 12);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LimitsTest, ::testing::ValuesIn(cases()), [](const auto& info) { return info.param.name; });

}  // namespace schedules_limits_test
}  // namespace rubato
