// The paper's statement that linearised round-robin ADMM can be unstable although each of its steps is stable.
#include <gtest/gtest.h>

#include <cmath>

#include "support/herd.h"

namespace rubato {
namespace paper_admm_test {

using test::Herd;

constexpr double eta = 0.001, start = 1000;

/// The method in plain arithmetic, for F = x^2 / 2.
class Oracle {
 public:
  Oracle(int replicas, double rho) : rho_(rho), x_(static_cast<std::size_t>(replicas), start), lambda_(x_.size(), 0), c_(start) {}
  void cycle() {
    for (std::size_t i = 0; i < x_.size(); ++i) {
      lambda_[i] -= x_[i] - c_;
      x_[i] = (x_[i] - eta * x_[i] + eta * rho_ * (lambda_[i] + c_)) / (1 + eta * rho_);
      c_ = 0;
      for (std::size_t j = 0; j < x_.size(); ++j) c_ += (x_[j] - lambda_[j]) / static_cast<double>(x_.size());
    }
  }
  double centre() const { return c_; }
  double size() const {
    double sum = 0;
    for (std::size_t i = 0; i < x_.size(); ++i) sum += x_[i] * x_[i] + lambda_[i] * lambda_[i];
    return std::sqrt(sum);
  }

 private:
  double rho_;
  std::vector<double> x_, lambda_;
  double c_;
};

Herd herd(int replicas, double rho) {
  return Herd(test::noisy_quadratic(1, 0, 1, start),
              {.coupling = {.name = "admm", .replicas = replicas, .values = {{"penalty", rho}}}, .store = test::sgd(eta, 0, 0)});
}

TEST(Admm, equals_the_equations) {
  for (const int replicas : {1, 3, 8}) {
    Oracle oracle(replicas, 2.5);
    for (int i = 0; i < 60; ++i) oracle.cycle();
    Herd real = herd(replicas, 2.5);
    real.run_on_threads(60, {.delays = {{"r0/worker-0", 0, 0.2}}});
    EXPECT_NEAR(real.centre().item<double>() / oracle.centre(), 1, 1e-9) << replicas;
  }
}

/// Factor by which one cycle grows what is left after the transients: the spectral radius. Measured over whole turns of the slow
/// oscillation by the energy of the state, from the equations that the test above ties to the real code.
double growth_per_cycle(int replicas, double rho) {
  Oracle oracle(replicas, rho);
  constexpr int window = 40'000;
  const auto energy = [&] {
    double sum = 0;
    for (int i = 0; i < window; ++i) {
      oracle.cycle();
      sum += std::log(oracle.size());
    }
    return sum / window;
  };
  energy();
  const double early = energy(), late = energy();
  return std::exp((late - early) / window);
}

TEST(Admm, has_the_spectral_radii_of_the_paper) {
  EXPECT_NEAR(growth_per_cycle(3, 2.5), 1.000974, 2e-6);
  EXPECT_NEAR(growth_per_cycle(3, 9), 0.999434, 2e-6);
  EXPECT_NEAR(growth_per_cycle(8, 2.5), 1.002258, 2e-6);
}

TEST(Admm, diverges_with_8_replicas_and_not_with_1_through_the_real_code) {
  const auto largest = [](Herd& herd) {
    double value = std::abs(herd.centre().item<double>());
    for (int i = 0; i < herd.job.replicas(); ++i) value = std::max(value, herd.weight(i).abs().item<double>());
    return value;
  };
  Herd eight = herd(8, 2.5), one = herd(1, 2.5);
  const auto runtime = make_thread_runtime({});
  const double early = largest(eight.run(*runtime, 0, 3000));
  EXPECT_GT(largest(eight.run(*runtime, 3000, 4000)), 3 * early);
  EXPECT_LT(largest(one.run_on_threads(3000)), 0.1 * start);
}

}  // namespace paper_admm_test
}  // namespace rubato
