// Devices that die and join in virtual time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rubato/core/error.h"
#include "rubato/observe/trace.h"
#include "support/herd.h"

namespace rubato {
namespace runtimes_units_test {

using ::testing::HasSubstr;

SimulatedPlatform hosts(int count, std::vector<Absence> absences) {
  return {.hosts = count, .absences = std::move(absences)};
}

/// `steps` seconds of work, one at a time.
Role worker(int unit, int steps, std::vector<double>& ends) {
  return {.name = "worker-" + std::to_string(unit),
          .run =
              [steps, &ends](Context& me) {
                for (int i = 0; i < steps; ++i) me.compute(ComputeKind::forward, i, 1, [] {});
                ends.push_back(me.now());
              },
          .device = unit,
          .unit = unit};
}

TEST(Units, a_death_ends_every_role_of_the_unit_and_nobody_elses) {
  std::vector<double> ends, left;
  const UnitEvents events{.left = [&](Context& me, int unit) {
    EXPECT_EQ(unit, 0);
    left.push_back(me.now());
  }};
  std::vector<Role> roles = {worker(0, 10, ends), worker(1, 10, ends)};
  roles.push_back(worker(0, 10, ends));  // on host 1, but of unit 0
  roles.back().name = "second-of-0";
  roles.back().device = 1;
  roles[1].device = 2;
  make_simulator(hosts(3, {{.host = 0, .dies = true, .seconds = 3.5}}), {})->run(roles, events);
  EXPECT_EQ(ends, std::vector<double>{10});
  EXPECT_EQ(left, std::vector<double>{3.5});
}

TEST(Units, one_that_joins_begins_then_and_one_that_is_too_late_does_not_keep_the_others) {
  std::vector<double> ends;
  std::vector<std::pair<int, double>> joined, left;
  const UnitEvents events{.left =
                              [&](Context& me, int unit) {
                                left.push_back({unit, me.now()});
                              },
                          .joins =
                              [&](Context& me, int unit) {
                                joined.push_back({unit, me.now()});
                              }};
  make_simulator(hosts(3, {{.host = 1, .seconds = 2}, {.host = 2, .seconds = 1000}}), {})
      ->run({worker(0, 10, ends), worker(1, 10, ends), worker(2, 10, ends)}, events);
  EXPECT_EQ(ends, (std::vector<double>{10, 12}));
  EXPECT_EQ(joined, (std::vector<std::pair<int, double>>{{1, 2}}));
  EXPECT_EQ(left, (std::vector<std::pair<int, double>>{{2, 12}}));
}

TEST(Units, a_host_without_which_nobody_can_go_on_must_not_die) {
  std::vector<double> ends;
  Role centre = worker(0, 1, ends);
  centre.unit = -1;
  const auto runtime = make_simulator(hosts(2, {{.host = 0, .dies = true, .seconds = 1}}), {});
  try {
    runtime->run({centre});
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("host runs 'worker-0'"));
  }
}

class MembersTest : public ::testing::TestWithParam<const char*> {
 protected:
  static test::Herd herd() {
    StoreOptions store = test::sgd(0.05, 0.5, 0);
    store.optimizer.nesterov = find_coupling(GetParam()).look_ahead;
    return {test::small_model("mlp"),
            {.coupling = {.name = GetParam(), .replicas = 3, .period = 2, .values = {{"moving-rate", 0.2}}},
             .store = store,
             .costs = std::vector<BlockCost>(3, BlockCost{0.1, 0.2, 0})}};
  }
};

TEST_P(MembersTest, training_goes_on_when_a_replica_dies_also_in_later_segments) {
  test::Herd running = herd();
  const auto runtime = make_simulator(hosts(4, {{.host = 1, .dies = true, .seconds = 10}}), {});
  running.run(*runtime, 0, 40).run(*runtime, 40, 80);
  EXPECT_EQ(running.job.position(), 80);
  const std::size_t steps = running.reports.losses().size();
  EXPECT_GT(steps, 160u);  // two that lived
  EXPECT_LT(steps, 175u);  // and about ten steps of the third
}

TEST_P(MembersTest, a_replica_that_joins_starts_from_the_centre_where_the_others_are) {
  test::Herd running = herd();
  Trace trace;
  const auto runtime = make_simulator(hosts(4, {{.host = 2, .seconds = 10}}), {.events = &trace});
  running.run(*runtime, 0, 40);
  EXPECT_EQ(running.job.position(), 40);
  const std::string text = trace.transcript();
  EXPECT_THAT(text, HasSubstr("joins-2      publish join block 0"));
  const std::size_t first = text.find("r2/worker-0  take batch");
  ASSERT_NE(first, std::string::npos);
  EXPECT_GE(std::stoi(text.substr(first + 24)), 8);  // a step takes 0.9 s
  EXPECT_GT(text.find("r2/worker-0  take batch"), text.find("joins-2      publish join"));
}

INSTANTIATE_TEST_SUITE_P(All, MembersTest, ::testing::Values("async-easgd", "eamsgd", "downpour", "mvadownpour", "mdownpour"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace runtimes_units_test
}  // namespace rubato
