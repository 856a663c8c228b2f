#include "rubato/job/what_if.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "rubato/core/error.h"
#include "rubato/cost/profile.h"
#include "rubato/cost/timings.h"
#include "rubato/io/files.h"
#include "rubato/train/trainer.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace job_what_if_test {

/// As if a run had been recorded: ten passes of a second forward and three backward, one after the other.
class WhatIfTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run = folder.path();
    TrainOptions options;
    options.model = "mlp";
    options.steps = 10;
    options.schedule = "hogwild";
    options.values.set("workers", 1);
    std::ofstream(run / "config.toml") << to_toml(options);
    std::ofstream(run / "timings.json") << to_json(Timings{.seconds = 50,
                                                           .steps = 10,
                                                           .processors = 2,
                                                           .passes = 10,
                                                           .forward = 10,
                                                           .backward = 30,
                                                           .samples = {{"worker-0", {0.5, 1.5}}}});
    Profile profile;
    for (int i = 0; i < 3; ++i) profile.blocks.push_back({.name = "fc", .seconds = {0.1, 0.1, 0}});
    std::ofstream(run / "profile.json") << to_json(profile);
  }
  Plan planned(const std::function<void(TrainOptions&)>& change) {
    TrainOptions options = recorded_options(run);
    change(options);
    return plan_what_if(run, options, {.simulated = true, .compute = false});
  }
  static double seconds(Plan plan) {
    test::TemporaryDirectory place;
    plan.options.run_dir = (place.path() / "run").string();
    Trainer trainer(std::move(plan), nullptr);
    trainer.run();
    return trainer.virtual_seconds();
  }
  test::TemporaryDirectory folder;
  std::filesystem::path run;
};

TEST_F(WhatIfTest, costs_are_scaled_to_what_was_recorded_and_the_error_is_told) {
  const Plan plan = planned([](TrainOptions&) {});
  EXPECT_NEAR(plan.costs[0].forward, 1.0 / 3, 1e-9);
  EXPECT_NEAR(plan.costs[0].backward, 1.0, 1e-9);
  ASSERT_TRUE(plan.what_if);
  EXPECT_NEAR(plan.what_if->predicted_seconds, 40, 15);  // every piece takes half as long or half as long again
  EXPECT_NEAR(plan.what_if->error(), plan.what_if->predicted_seconds / 50 - 1, 1e-12);
  EXPECT_EQ(plan.platform.cores_per_host, 2);
}

TEST_F(WhatIfTest, twice_the_workers_take_about_half_the_time) {
  const double one = seconds(planned([](TrainOptions&) {}));
  const double two = seconds(planned([](TrainOptions& options) { options.values.set("workers", 2); }));
  EXPECT_GT(one / two, 1.5);
  EXPECT_LT(one / two, 2.4);
}

TEST_F(WhatIfTest, what_would_change_the_costs_is_refused) {
  EXPECT_THROW(planned([](TrainOptions& options) { options.batch_size = 64; }), UsageError);
  EXPECT_THROW(planned([](TrainOptions& options) { options.model = "lenet"; }), UsageError);
  std::filesystem::remove(run / "timings.json");
  EXPECT_THROW(planned([](TrainOptions&) {}), DataError);
}

/// Of gradient models the recorded time counts, not what their operations cost by the profile.
TEST_F(WhatIfTest, an_unchanged_run_is_predicted_and_simulated_alike_beside_its_passes_too) {
  TrainOptions options = recorded_options(run);
  options = with_schedule(std::move(options), "dni");
  options.values.set("dni-width", 64);
  options.steps = 10;
  options.stages = 2;
  options.cuts = "1";
  std::ofstream(run / "config.toml") << to_toml(options);
  Timings timings = timings_from_json(read_file(run / "timings.json"), "timings.json");
  timings.samples = {{"dni-0", {1}}, {"dni-1", {1}}};
  timings.aside["dni-0"][static_cast<std::size_t>(Aside::predict)] = {10, 20};
  timings.aside["dni-0"][static_cast<std::size_t>(Aside::learn)] = {10, 5};
  std::ofstream(run / "timings.json") << to_json(timings);
  const Plan plan = planned([](TrainOptions&) {});
  const double predicted = plan.what_if->predicted_seconds;
  EXPECT_GT(predicted, 25) << "predictions and learning alone take as long";
  EXPECT_LT(predicted, 70);
  EXPECT_NEAR(seconds(planned([](TrainOptions&) {})), predicted, 1e-6);
  const double wider = seconds(planned([](TrainOptions& changed) { changed.values.set("dni-width", 640); }));
  EXPECT_GT(wider, 1.5 * predicted) << "scaled to what the operations cost";
}

TEST(Timings, survive_json_and_count_passes) {
  TimingsMeter meter;
  meter.add("w", {.kind = EventKind::take_batch, .batch = 0}, 0, 0);
  meter.add("w", {.kind = EventKind::take_batch, .batch = -1}, 0, 0);
  meter.add("w", {.kind = EventKind::compute, .computation = ComputeKind::forward}, 1, 3);
  meter.add("w", {.kind = EventKind::compute, .computation = ComputeKind::backward}, 3, 4);
  meter.add("w", {.kind = EventKind::compute, .computation = ComputeKind::predict}, 4, 4.5);
  meter.add("w", {.kind = EventKind::compute, .computation = ComputeKind::predict}, 5, 6.5);
  const Timings read = timings_from_json(to_json(meter.timings()), "t.json");
  EXPECT_EQ(read.passes, 1);
  EXPECT_EQ(read.forward, 2);
  EXPECT_EQ(read.backward, 1);
  EXPECT_EQ(read.samples.at("w"), std::vector<double>{2});
  EXPECT_EQ(read.aside.at("w")[static_cast<std::size_t>(Aside::predict)].count, 2);
  EXPECT_EQ(read.aside.at("w")[static_cast<std::size_t>(Aside::predict)].mean(), 1);
  EXPECT_EQ(read.aside.at("w")[static_cast<std::size_t>(Aside::learn)].count, 0);
  EXPECT_THROW(timings_from_json("{}", "t.json"), DataError);
}

}  // namespace job_what_if_test
}  // namespace rubato
