// Statements of "Deep learning with Elastic Averaging SGD" about the elastic methods, through the schedules, hooks and centres
// that training uses.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "rubato/model/model.h"
#include "support/herd.h"

namespace rubato {
namespace paper_easgd_test {

using test::Herd;

torch::Tensor total(Herd& herd) {
  torch::Tensor sum = herd.centre();
  for (int i = 0; i < herd.job.replicas(); ++i) sum += herd.weight(i);
  return sum;
}

class ElasticSymmetry : public ::testing::TestWithParam<const char*> {};

TEST_P(ElasticSymmetry, exchanges_leave_the_sum_of_replicas_and_centre_and_steps_change_it_by_their_gradients_alone) {
  // Powers of two and few exchanges: every number is exact in double.
  Herd herd(test::whole_drift(), {.coupling = {.name = GetParam(), .replicas = 3, .period = 2, .values = {{"moving-rate", 0.25}}},
                                  .store = test::sgd(0.5, 0, 0)});
  herd.run_on_threads(12, {.delays = {{"r0/worker-0", 0, 2}, {"r2/worker-0", 0, 3}}});
  EXPECT_TRUE(torch::equal(total(herd), -0.5 * test::sum_of_drifts(3, 12)));
  EXPECT_FALSE(torch::equal(herd.centre(), torch::zeros({4}, torch::kFloat64)));
}
INSTANTIATE_TEST_SUITE_P(Easgd, ElasticSymmetry, ::testing::Values("easgd", "async-easgd"),
                         [](const auto& info) { return std::string(info.param).substr(0, 5); });

TEST(EamsgdSymmetry, holds_for_the_iterates_under_momentum) {
  Herd herd(test::whole_drift(), {.coupling = {.name = "eamsgd", .replicas = 3, .period = 2, .values = {{"moving-rate", 0.25}}},
                                  .store = {.optimizer = {.learning_rate = {.base = 0.5}, .momentum = 0.5, .nesterov = true}}});
  herd.run_on_threads(8, {.delays = {{"r1/worker-0", 0, 2}}});
  torch::Tensor sum = herd.centre(), expected = torch::zeros({4}, torch::kFloat64);
  Bystander me;
  for (int i = 0; i < 3; ++i) {
    sum += herd.job.store(i).iterate(me, 0)->tensors[0];
    torch::Tensor v = torch::zeros({4}, torch::kFloat64);
    for (std::int64_t t = 0; t < 8; ++t) {
      v = 0.5 * v - 0.5 * test::WholeDriftImpl::gradient_of(i, t);
      expected += v;
    }
  }
  EXPECT_TRUE(torch::equal(sum, expected));
}

/// Independent runs: what each replica would be alone.
std::vector<std::string> digests_alone(const Herd::Options& options, int replicas, std::int64_t steps) {
  std::vector<std::string> digests;
  for (int i = 0; i < replicas; ++i) {
    Herd::Options one = options;
    one.coupling = {.name = "none", .replicas = 1};
    one.stage.seed = replica_seed(one.stage.seed, i);
    JobParts parts = Herd::parts(one, test::small_images());
    parts.batches = {std::make_shared<const BatchMaker>(
        test::small_images(), BatchOptions{.batch_size = one.batch_size, .seed = 1u + static_cast<unsigned>(i)})};
    const Model model = test::norm_and_dropout_model();
    test::Reports reports;
    Job job(model, std::move(parts), reports);
    job.open(0, steps);
    make_thread_runtime({})->run(job.roles());
    digests.push_back(job.store(0).digest());
  }
  return digests;
}

TEST(Easgd, with_moving_rate_0_is_independent_runs_and_the_centre_rests) {
  for (const char* name : {"easgd", "async-easgd"}) {
    const Herd::Options options{.coupling = {.name = name, .replicas = 3, .period = 2, .values = {{"moving-rate", 0}}},
                                .store = test::sgd()};
    Herd herd(test::norm_and_dropout_model(), options);
    const torch::Tensor start = herd.centre();
    herd.run_on_threads(10);
    const auto alone = digests_alone(options, 3, 10);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(herd.job.store(i).digest(), alone[static_cast<std::size_t>(i)]) << name << " " << i;
    EXPECT_TRUE(torch::equal(herd.centre(), start));
  }
}

TEST(Easgd, with_moving_rate_1_worker_and_centre_swap) {
  // Rate 0 after the first step would need a schedule; zero curvature and no noise do the same: only exchanges move anything.
  Herd herd(test::noisy_quadratic(0),
            {.coupling = {.name = "async-easgd", .replicas = 1, .period = 1, .values = {{"moving-rate", 1}}},
             .store = test::sgd(0.1, 0, 0)});
  Bystander me;
  const_cast<WeightStore&>(herd.job.store(0)).update(me, 0, "test", [](const TensorSet&, std::vector<torch::Tensor>& next) {
    next[0].fill_(5);
  });
  herd.run_on_threads(1);
  EXPECT_EQ(herd.weight(0).item<double>(), 1);
  EXPECT_EQ(herd.centre().item<double>(), 5);
}

TEST(Easgd, synchronous_with_beta_1_puts_the_centre_at_the_mean_of_the_old_replicas) {
  Herd herd(test::noisy_quadratic(0, 0, 2),
            {.coupling = {.name = "easgd", .replicas = 4, .period = 1, .values = {{"moving-rate", 0.25}}},
             .store = test::sgd(0.1, 0, 0)});
  Bystander me;
  for (int i = 0; i < 4; ++i) {
    const_cast<WeightStore&>(herd.job.store(i)).update(me, 0, "test", [i](const TensorSet&, std::vector<torch::Tensor>& next) {
      next[0].fill_(8 * i);
    });
  }
  herd.run_on_threads(1);
  EXPECT_TRUE(torch::equal(herd.centre(), torch::full({2}, 12.0, torch::kFloat64)));
}

TEST(Eamsgd, with_momentum_0_is_async_easgd) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  const auto digest = [](const char* name) {
    Herd herd(test::norm_and_dropout_model(),
              {.coupling = {.name = name, .replicas = 3, .period = 3, .values = {{"moving-rate", 0.3}}},
               .store = test::sgd(0.05, 0, 1e-3),
               .costs = std::vector<BlockCost>(test::norm_and_dropout_model().blocks.size(), BlockCost{0.5, 1, 0})});
    herd.run(*make_simulator(Herd::ideal_platform(4), {}), 0, 12);
    return herd.job.digest();
  };
  EXPECT_EQ(digest("eamsgd"), digest("async-easgd"));
}

/// Algorithm 2 by hand for one worker: gradient at s + delta v, then the velocity, then the elastic term.
TEST(Eamsgd, equals_algorithm_2) {
  const double eta = 0.1, delta = 0.8, alpha = 0.3;
  const int period = 3, steps = 20;
  double x = 1, c = 1, v = 0;
  for (int t = 0; t < steps; ++t) {
    const double s = x;
    if (t % period == 0) {
      const double e = alpha * (s - c);
      x -= e;
      c += e;
    }
    v = delta * v - eta * (s + delta * v);  // F = x^2 / 2
    x += v;
  }
  Herd herd(test::noisy_quadratic(1),
            {.coupling = {.name = "eamsgd", .replicas = 1, .period = period, .values = {{"moving-rate", alpha}}},
             .store = {.optimizer = {.learning_rate = {.base = eta}, .momentum = delta, .nesterov = true}}});
  herd.run_on_threads(steps);
  Bystander me;
  EXPECT_NEAR(herd.job.store(0).iterate(me, 0)->tensors[0].item<double>(), x, 1e-12);
  EXPECT_NEAR(herd.centre().item<double>(), c, 1e-12);
}

/// Algorithm 1 by hand; with the gradient after the pull the result is another one.
TEST(Easgd, evaluates_the_gradient_at_the_weights_before_the_pull) {
  const double eta = 0.2, alpha = 0.4;
  const int steps = 10;
  const auto by_hand = [&](bool before) {
    double x = 1, c = 1;
    for (int t = 0; t < steps; ++t) {
      const double s = x, e = alpha * (s - c);
      x -= e;
      c += e;
      x -= eta * (before ? s : x);
    }
    return std::pair(x, c);
  };
  Herd herd(test::noisy_quadratic(1),
            {.coupling = {.name = "async-easgd", .replicas = 1, .period = 1, .values = {{"moving-rate", alpha}}},
             .store = test::sgd(eta, 0, 0)});
  herd.run_on_threads(steps);
  EXPECT_NEAR(herd.weight(0).item<double>(), by_hand(true).first, 1e-12);
  EXPECT_NEAR(herd.centre().item<double>(), by_hand(true).second, 1e-12);
  EXPECT_GT(std::abs(by_hand(true).second - by_hand(false).second), 1e-3);
}

double round_robin_after(int replicas, double eta, double alpha, int steps) {
  Herd herd(test::noisy_quadratic(1),
            {.coupling = {.name = "async-easgd", .replicas = replicas, .period = 1, .values = {{"moving-rate", alpha}}},
             .store = test::sgd(eta, 0, 0),
             .costs = {{replicas / 2.0, replicas / 2.0, 0}}});
  herd.run_round_robin(steps);
  double largest = herd.centre().abs().item<double>();
  for (int i = 0; i < replicas; ++i) largest = std::max(largest, herd.weight(i).abs().item<double>());
  return largest;
}

TEST(Easgd, round_robin_is_stable_up_to_4_minus_2_eta_over_4_minus_eta) {
  if (!test::has_simulator()) GTEST_SKIP() << "built without SimGrid";
  // The bound is tight for odd p and sufficient for every p.
  for (const double eta : {0.5, 1.5}) {
    const double bound = largest_moving_rate(find_coupling("async-easgd"), eta, 3);
    for (const int replicas : {1, 3}) {
      EXPECT_LT(round_robin_after(replicas, eta, 0.97 * bound, 700), 0.05) << replicas << " replicas, eta " << eta;
      EXPECT_GT(round_robin_after(replicas, eta, 1.03 * bound, 700), 20) << replicas << " replicas, eta " << eta;
    }
    EXPECT_LT(round_robin_after(2, eta, 0.97 * bound, 700), 0.05) << "eta " << eta;
  }
}

double synchronous_after(int replicas, double eta, double alpha, int steps) {
  // One step of noise takes the replicas apart... none is needed: the mean mode is the unstable one.
  Herd herd(test::noisy_quadratic(1),
            {.coupling = {.name = "easgd", .replicas = replicas, .period = 1, .values = {{"moving-rate", alpha}}},
             .store = test::sgd(eta, 0, 0)});
  herd.run_on_threads(steps);
  return std::max(herd.centre().abs().item<double>(), herd.weight(0).abs().item<double>());
}

TEST(Easgd, synchronous_is_stable_up_to_4_minus_2_eta_over_2_plus_2p_minus_eta_p) {
  for (const int replicas : {1, 4}) {
    const double bound = largest_moving_rate(find_coupling("easgd"), 0.5, replicas);
    EXPECT_LT(synchronous_after(replicas, 0.5, 0.97 * bound, 500), 0.05);
    EXPECT_GT(synchronous_after(replicas, 0.5, 1.03 * bound, 500), 20);
  }
}

TEST(Easgd, mean_and_variance_of_the_synchronous_centre_follow_the_closed_forms) {
  const int p = 4, t = 15, size = 40'000;
  const double h = 1, eta = 0.2, alpha = 0.1, sigma = 1, start = 1;
  Herd herd(test::noisy_quadratic(h, sigma, size, start),
            {.coupling = {.name = "easgd", .replicas = p, .period = 1, .values = {{"moving-rate", alpha}}},
             .store = test::sgd(eta, 0, 0)});
  herd.run_on_threads(t);

  const double a = eta * h + (p + 1) * alpha, c2 = eta * h * p * alpha, root = std::sqrt(a * a - 4 * c2);
  const double gamma = 1 - (a - root) / 2, phi = 1 - (a + root) / 2;
  const double u0 = p * (start - alpha * start / (1 - p * alpha - phi));
  const double mean = std::pow(gamma, t) * start + (std::pow(gamma, t) - std::pow(phi, t)) / (gamma - phi) * alpha * u0;
  const double g2 = gamma * gamma, f2 = phi * phi, gf = gamma * phi;
  const double variance =
      p * p * alpha * alpha * eta * eta / ((gamma - phi) * (gamma - phi)) *
      ((g2 - std::pow(g2, t)) / (1 - g2) + (f2 - std::pow(f2, t)) / (1 - f2) - 2 * (gf - std::pow(gf, t)) / (1 - gf)) * sigma *
      sigma / p;
  const torch::Tensor centre = herd.centre();
  EXPECT_NEAR(centre.mean().item<double>(), mean, 5 * std::sqrt(variance / size));
  EXPECT_NEAR(centre.var().item<double>() / variance, 1, 5 * std::sqrt(2.0 / size));  // a variance estimate's own deviation
}

}  // namespace paper_easgd_test
}  // namespace rubato
