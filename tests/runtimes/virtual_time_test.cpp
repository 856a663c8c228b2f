#include <gtest/gtest.h>

#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"
#include "support/lab.h"

namespace rubato {
namespace runtimes_virtual_time_test {

class VirtualTimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!test::has_simulator()) FAIL() << "these tests need SimGrid: install libsimgrid-dev";
  }
};

TEST_F(VirtualTimeTest, computing_takes_exactly_its_cost) {
  const auto simulator = make_simulator({.hosts = 2}, {});
  double end = 0;
  simulator->run({{.name = "a", .run = [&](Context& me) {
                     me.compute(ComputeKind::other, 0, 1.5, [] {});
                     me.sleep(0.25);
                     end = me.now();
                   }}});
  EXPECT_NEAR(end, 1.75, 1e-9);
}

TEST_F(VirtualTimeTest, a_straggler_is_late_once_for_each_batch_of_a_pipeline) {
  for (const char* schedule : {"serial", "ddg", "fdg", "dni", "gpipe", "1f1b", "pd-asgd", "hogwild", "lpp"}) {
    const auto seconds = [&](std::vector<Straggler> stragglers) {
      ScheduleOptions options{.name = schedule};
      if (find_schedule(schedule).uses_cuts) options.cuts = {1, 2};
      test::Lab lab(test::small_model("mlp"),
                    {.schedule = options, .store = test::sgd(), .costs = {{1, 2, 0}, {1, 2, 0}, {1, 2, 0}}});
      SimulatedPlatform platform{.hosts = 4};
      platform.stragglers = std::move(stragglers);
      const auto simulator = make_simulator(platform, {});
      lab.run(*simulator, 0, 6);
      return simulator->now();
    };
    const double late = seconds({{.host = 0, .kind = Straggler::Kind::fixed, .seconds = 100}}) - seconds({});
    EXPECT_GT(late, 80) << schedule << ": other workers take over some of its batches";
    EXPECT_LT(late, 6 * 100 + 1) << schedule;
    if (find_schedule(schedule).synchronous) EXPECT_GT(late, 5 * 100) << schedule << ": every batch waits for it";
  }
}

TEST_F(VirtualTimeTest, two_roles_on_one_core_share_it_and_on_two_hosts_do_not) {
  const auto seconds = [](int second_device) {
    const auto simulator = make_simulator({.hosts = 2}, {});
    const auto work = [](Context& me) { me.compute(ComputeKind::other, 0, 1, [] {}); };
    simulator->run({{.name = "a", .run = work}, {.name = "b", .run = work, .device = second_device}});
    return simulator->now();
  };
  EXPECT_NEAR(seconds(0), 2, 1e-9);
  EXPECT_NEAR(seconds(1), 1, 1e-9);
}

// Worker a computes from 0 to 2, worker b from 0 to 1. What a read before its computation must be what stood there at 0; if
// the simulator ran the work at the end of its time, a would see what b published at 1, and staleness would vanish.
TEST_F(VirtualTimeTest, work_sees_the_world_at_its_start_and_others_see_its_result_at_its_end) {
  const auto simulator = make_simulator({.hosts = 2}, {});
  int published = 0, seen_by_a = -1, seen_by_b_at_the_end = -1;
  simulator->run({{.name = "a",
                   .run =
                       [&](Context& me) {
                         me.compute(ComputeKind::other, 0, 2, [&] { seen_by_a = published; });
                         published = 2;
                       }},
                  {.name = "b",
                   .run =
                       [&](Context& me) {
                         me.compute(ComputeKind::other, 0, 1, [] {});
                         published = 1;
                         me.sleep(0.5);
                         seen_by_b_at_the_end = published;
                       },
                   .device = 1}});
  EXPECT_EQ(seen_by_a, 0);
  EXPECT_EQ(seen_by_b_at_the_end, 1);
  EXPECT_EQ(published, 2);
}

TEST_F(VirtualTimeTest, hogwild_workers_of_equal_speed_are_stale_by_what_the_others_published_meanwhile) {
  test::Lab::Options options{.schedule = {.name = "hogwild", .publish = Publish::model, .values = {{"workers", 3}}},
                             .store = test::sgd(0.01, 0, 0)};
  options.costs.assign(3, BlockCost{1, 2, 0});
  test::Lab lab(test::small_model("mlp"), options);
  lab.run(*make_simulator({.hosts = 3}, {}), 0, 30);
  // In the first round all read version 0 and publish 0, 1 and 2 behind. From then on each reads right after its own publication
  // and meets the other two before its next.
  for (int block = 0; block < lab.store.block_count(); ++block) {
    EXPECT_EQ(lab.store.staleness(block).max, 2);
    EXPECT_EQ(lab.store.staleness(block).sum, 0 + 1 + 2 + 27 * 2);
  }
}

TEST_F(VirtualTimeTest, a_message_takes_latency_and_its_size_over_the_bandwidth) {
  struct Bulk final : Message {
    std::size_t bytes() const override { return 1'000'000; }
  };
  const Channel<Bulk> channel{{"bulk", 1}};
  const auto simulator = make_simulator({.hosts = 2, .link_bytes_per_second = 1e6, .link_latency_seconds = 0.1}, {});
  simulator->run({{.name = "a", .run = [&](Context& me) { send(me, channel, Bulk{}); }},
                  {.name = "b", .run = [&](Context& me) { receive(me, channel); }, .device = 1}});
  EXPECT_GT(simulator->now(), 1.0);  // SimGrid's default model corrects both for TCP
  EXPECT_LT(simulator->now(), 3.0);
}

}  // namespace runtimes_virtual_time_test
}  // namespace rubato
