// What runs measure of themselves: ages, waiting, bias.
#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/model/model.h"
#include "rubato/observe/bias_probe.h"
#include "rubato/observe/trace_figures.h"
#include "support/herd.h"

namespace rubato {
namespace observe_figures_test {

/// Three blocks of 1 s forward and 2 s backward each.
TraceFigures figures(Publish publish) {
  Trace trace;
  test::Lab lab(test::small_model("mlp"),
                {.schedule = {.name = "pd-asgd",
                              .publish = publish,
                              .values = {{"forward-threads", 1}, {"backward-threads", 1}, {"max-in-flight", 1}}},
                 .store = test::sgd(),
                 .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})});
  lab.run(*make_simulator(test::Herd::ideal_platform(2), {.events = &trace}), 0, 10);
  return figures_of(trace);
}

TEST(TraceFigures, updating_layer_by_layer_saves_half_the_backward_time_of_all_blocks_but_one) {
  const TraceFigures layers = figures(Publish::block), whole = figures(Publish::model);
  EXPECT_NEAR(layers.age_seconds.at(2), 3 + 2, 1e-6);
  EXPECT_NEAR(layers.age_seconds.at(0), 3 + 6, 1e-6);
  EXPECT_NEAR(whole.age_seconds.at(2), 3 + 6, 1e-6);
  EXPECT_NEAR(whole.mean_age_seconds - layers.mean_age_seconds, 2.0 * (3 - 1) / 2, 1e-6);  // bT (M - 1) / 2
}

TEST(TraceFigures, waiting_is_a_share_of_the_time_of_roles_that_compute) {
  Trace trace;
  trace.add("r0/worker-0", {.kind = EventKind::compute, .batch = 0, .computation = ComputeKind::forward}, 0, 6);
  trace.add("r0/worker-0", {.kind = EventKind::receive, .what = "c"}, 6, 8);
  trace.add("centre", {.kind = EventKind::receive, .what = "c"}, 0, 8);
  EXPECT_DOUBLE_EQ(figures_of(trace).waiting_share, 0.25);
}

BiasReport bias(const ScheduleOptions& schedule, double rate, std::int64_t steps = 40) {
  test::Herd::Options options{
      .schedule = schedule, .store = test::sgd(rate, 0, 0), .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})};
  JobParts parts = test::Herd::parts(options, test::small_images());
  parts.probe_every = 2;
  const Model model = test::small_model("mlp");
  test::Reports reports;
  Job job(model, parts, reports);
  job.open(0, steps);
  make_simulator(test::Herd::ideal_platform(4), {})->run(job.roles());
  return *job.bias();
}

TEST(BiasProbe, finds_none_without_staleness) {
  const BiasReport report = bias({.name = "serial"}, 0.1);
  EXPECT_EQ(report.probes, 20);
  EXPECT_EQ(report.max_bias, 0);
  EXPECT_EQ(report.max_staleness, 0);
  EXPECT_GT(report.max_gradient, 0);
}

TEST(BiasProbe, bias_grows_with_the_step_and_stays_below_the_bound) {
  const ScheduleOptions pd{.name = "pd-asgd", .values = {{"forward-threads", 1}, {"backward-threads", 2}, {"max-in-flight", 4}}};
  const BiasReport small = bias(pd, 0.0005), large = bias(pd, 0.01);
  EXPECT_GT(small.max_bias, 0);
  EXPECT_GT(large.max_bias, 5 * small.max_bias);
  EXPECT_GT(small.max_staleness, 0);
  ASSERT_TRUE(small.bound());
  EXPECT_LE(small.max_bias, *small.bound());
}

/// Of every probed batch a copy of the weights is kept until its gradients are complete, which those of a partial step never are.
TEST(BiasProbe, keeps_no_more_than_what_is_under_way) {
  const auto waiting = [](const ScheduleOptions& schedule) { return bias(schedule, 0.01, 300).waiting; };
  EXPECT_EQ(waiting({.name = "serial"}), 0);
  EXPECT_EQ(waiting({.name = "hogwild", .values = {{"workers", 3}}}), 0);
  EXPECT_EQ(waiting({.name = "pd-asgd", .values = {{"forward-threads", 1}, {"backward-threads", 2}, {"max-in-flight", 4}}}), 0);
  EXPECT_EQ(waiting({.name = "lpp", .values = {{"workers", 3}}}), 0);
  EXPECT_EQ(waiting({.name = "gpipe", .cuts = {1}, .values = {{"micro-batches", 2}}}), 0);
  for (const char* staged : {"ddg", "fdg", "dni", "features-replay"}) {
    EXPECT_LE(waiting({.name = staged, .cuts = {1, 2}}), 4) << staged;  // in flight between two segments
  }
  EXPECT_GT(bias({.name = "lpp", .values = {{"workers", 3}, {"partial-after", 20}}}, 0.01, 300).probes, 5) << "of whole steps";
}

TEST(BiasProbe, changes_no_bit) {
  const auto digest = [](std::int64_t every) {
    test::Herd::Options options{.schedule = {.name = "hogwild", .values = {{"workers", 3}}},
                                .store = test::sgd(),
                                .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})};
    JobParts parts = test::Herd::parts(options, test::small_images());
    parts.probe_every = every;
    const Model model = test::small_model("mlp");
    test::Reports reports;
    Job job(model, parts, reports);
    job.open(0, 20);
    make_simulator(test::Herd::ideal_platform(3), {})->run(job.roles());
    return job.digest();
  };
  EXPECT_EQ(digest(0), digest(3));
}

}  // namespace observe_figures_test
}  // namespace rubato
