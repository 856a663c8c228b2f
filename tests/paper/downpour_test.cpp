// Statements about DOWNPOUR and its averaged and momentum forms.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numbers>

#include "support/herd.h"

namespace rubato {
namespace paper_downpour_test {

using test::Herd;

std::string serial_digest(const StoreOptions& store, std::int64_t steps) {
  return test::Lab(test::norm_and_dropout_model(), {.schedule = {.name = "serial"}, .store = store})
      .run_on_threads(steps)
      .store.digest();
}

class DownpourPeriod : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(DownpourPeriod, with_one_replica_is_serial_whatever_the_period) {
  Herd herd(test::norm_and_dropout_model(),
            {.coupling = {.name = "downpour", .replicas = 1, .period = GetParam()}, .store = test::sgd()});
  herd.run_on_threads(16);
  EXPECT_EQ(herd.job.digest(), serial_digest(test::sgd(), 16));
}
INSTANTIATE_TEST_SUITE_P(Periods, DownpourPeriod, ::testing::Values(1, 3, 4, 16, 100));

TEST(Downpour, with_one_replica_has_the_serial_weights_at_the_centre_after_every_push) {
  Herd herd(test::norm_and_dropout_model(), {.coupling = {.name = "downpour", .replicas = 1, .period = 4}, .store = test::sgd()});
  herd.run_on_threads(16);
  EXPECT_TRUE(torch::equal(Herd::first_of(herd.job.coupling().evaluation_weights()), herd.weight(0)));
}

double round_robin_after(int replicas, double eta, int steps) {
  Herd herd(test::noisy_quadratic(1), {.coupling = {.name = "downpour", .replicas = replicas, .period = 1},
                                       .store = test::sgd(eta, 0, 0),
                                       .costs = {{replicas / 2.0, replicas / 2.0, 0}}});
  herd.run_round_robin(steps);
  return herd.centre().abs().item<double>();
}

TEST(Downpour, in_strict_round_robin_is_a_delay_of_p_minus_1) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  for (const int p : {2, 3, 4}) {
    const int delay = p - 1;
    const double bound = 2 * std::sin(std::numbers::pi / (2 * (2 * delay + 1)));
    EXPECT_LT(round_robin_after(p, 0.97 * bound, 700), 0.05) << p << " replicas";
    EXPECT_GT(round_robin_after(p, 1.03 * bound, 700), 20) << p << " replicas";
  }
}

TEST(Downpour, never_loses_an_update) {
  for (const std::int64_t period : {1, 2, 4}) {
    Herd herd(test::whole_drift(),
              {.coupling = {.name = "downpour", .replicas = 4, .period = period}, .store = test::sgd(1, 0, 0)});
    herd.run_on_threads(24, {.delays = {{"r1/worker-0", 0, 1}, {"r3/worker-0", 0, 2}, {"centre", 0, 1}}});
    EXPECT_TRUE(torch::equal(herd.centre(), -test::sum_of_drifts(4, 24))) << "period " << period;
  }
}

TEST(Downpour, never_loses_or_repeats_an_update_of_several_workers_on_one_replica) {
  // Period 1: every worker pushes after its own step whatever the replica has learned by then, so nothing is left at the end.
  Herd herd(test::whole_drift(), {.schedule = {.name = "hogwild", .values = {{"workers", 3}}},
                                  .coupling = {.name = "downpour", .replicas = 2, .period = 1},
                                  .store = test::sgd(1, 0, 0)});
  herd.run_on_threads(48, {.delays = {{"r0/worker-1", 0, 1}, {"r1/worker-2", 0, 2}, {"centre", 0, 1}}});
  EXPECT_TRUE(torch::equal(herd.centre(), -test::sum_of_drifts(2, 48)));
}

TEST(Downpour, a_running_mean_of_the_centre_is_what_is_evaluated_of_adownpour_and_mvadownpour) {
  const double eta = 0.5, rate = 0.25;
  const int steps = 10;
  double c = 1, mean = 1, moving = 1;
  for (int t = 0; t < steps; ++t) {
    mean += (c - mean) / (t + 1);
    moving += rate * (c - moving);
    c -= eta * c;
  }
  const auto evaluated = [&](const char* name) {
    Herd herd(test::noisy_quadratic(1),
              {.coupling = {.name = name, .replicas = 1, .period = 1, .values = {{"averaging-rate", rate}}},
               .store = test::sgd(eta, 0, 0)});
    return herd.run_on_threads(steps).centre().item<double>();
  };
  EXPECT_NEAR(evaluated("downpour"), c, 1e-12);
  EXPECT_NEAR(evaluated("adownpour"), mean, 1e-12);
  EXPECT_NEAR(evaluated("mvadownpour"), moving, 1e-12);
}

StoreOptions nesterov(double momentum) {
  StoreOptions store = test::sgd(0.05, momentum, 1e-3);
  store.optimizer.nesterov = momentum > 0;
  return store;
}

TEST(Mdownpour, with_one_replica_is_serial_nesterov) {
  for (const double momentum : {0.0, 0.9}) {
    Herd herd(test::norm_and_dropout_model(), {.coupling = {.name = "mdownpour", .replicas = 1}, .store = nesterov(momentum)});
    herd.run_on_threads(12);
    EXPECT_EQ(herd.job.digest(), serial_digest(nesterov(momentum), 12)) << "momentum " << momentum;
  }
}

TEST(Mdownpour, with_momentum_0_in_round_robin_is_downpour_of_period_1) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  const auto centre = [](const char* name) {
    Herd herd(test::noisy_quadratic(1, 0.3, 5),
              {.coupling = {.name = name, .replicas = 3, .period = 1}, .store = test::sgd(0.1, 0, 0), .costs = {{1.5, 1.5, 0}}});
    return herd.run_round_robin(10).centre();
  };
  EXPECT_TRUE(torch::allclose(centre("mdownpour"), centre("downpour"), 1e-12, 1e-12));
}

}  // namespace paper_downpour_test
}  // namespace rubato
