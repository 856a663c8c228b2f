// Every schedule inside every coupling on every runtime: it trains, or is refused with a reason. How far an asynchronous pair
// lowers the loss in so many steps is asked in virtual time alone; on threads it is asked what no timing can change.
#include <gtest/gtest.h>

#include <cmath>

#include "rubato/config/options.h"
#include "rubato/core/error.h"
#include "support/fast_simulator.h"
#include "support/herd.h"

namespace rubato {
namespace couplings_pairs_test {

struct Pair {
  std::string schedule, coupling, runtime;
};

void PrintTo(const Pair& pair, std::ostream* out) {
  *out << pair.schedule << " in " << pair.coupling << " on " << pair.runtime;
}

std::vector<Pair> pairs() {
  std::vector<Pair> all;
  for (const ScheduleEntry& schedule : schedules()) {
    for (const CouplingEntry& coupling : couplings()) {
      all.push_back({schedule.name, coupling.name, "threads"});
      if (test::has_simulator()) all.push_back({schedule.name, coupling.name, "simulator"});
    }
  }
  return all;
}

/// Why the command line refuses the pair; empty if it does not.
std::string refusal(const Pair& pair) {
  TrainOptions options;
  options.schedule = pair.schedule;
  options.coupling = pair.coupling;
  try {
    resolve(options);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

double mean(const std::vector<double>& values, std::size_t begin, std::size_t end) {
  double sum = 0;
  for (std::size_t i = begin; i < end; ++i) sum += values[i];
  return sum / static_cast<double>(end - begin);
}

class PairTest : public ::testing::TestWithParam<Pair> {};

TEST_P(PairTest, trains_or_is_refused_with_a_reason) {
  const Pair& pair = GetParam();
  if (const std::string reason = refusal(pair); !reason.empty()) {
    EXPECT_NE(reason.find("--coupling " + pair.coupling), std::string::npos) << reason;
    EXPECT_NE(reason.find("use "), std::string::npos) << reason;  // the way out
    return;
  }
  const CouplingEntry& coupling = find_coupling(pair.coupling);
  ScheduleOptions schedule{.name = pair.schedule, .classes = 10, .values = {{"dni-lr", 0.01}, {"dni-labels", true}}};
  if (find_schedule(pair.schedule).uses_cuts) schedule.cuts = {1, 2};
  StoreOptions store = test::sgd(0.05, 0.5, 0);
  store.optimizer.nesterov = coupling.look_ahead;
  test::Herd herd(test::small_model("mlp"), {.schedule = schedule,
                                             .coupling = {.name = pair.coupling,
                                                          .replicas = pair.coupling == "none" ? 1 : 2,
                                                          .period = 3,
                                                          .values = {{"moving-rate", 0.15}}},
                                             .store = store,
                                             .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0.1})});
  const auto runtime =
      pair.runtime == "threads" ? make_thread_runtime({}) : make_simulator({.hosts = 4}, {.one_thread = test::one_thread});
  const bool learns = pair.runtime == "simulator";  // threads have the same bits or a timing of their own
  const int half = learns ? 80 : 20;
  herd.run(*runtime, 0, half).run(*runtime, half, 2 * half);
  const auto losses = herd.reports.losses();
  ASSERT_EQ(losses.size(), static_cast<std::size_t>(2 * half * herd.job.replicas()));
  EXPECT_TRUE(std::ranges::all_of(losses, [](double loss) { return std::isfinite(loss); }));
  EXPECT_EQ(herd.job.position(), 2 * half);
  EXPECT_TRUE(herd.job.finite());
  if (!learns) return;
  EXPECT_LT(mean(losses, losses.size() - 20, losses.size()), 0.7 * mean(losses, 0, 20));
}

INSTANTIATE_TEST_SUITE_P(All, PairTest, ::testing::ValuesIn(pairs()), [](const auto& info) {
  std::string name = info.param.schedule + "_in_" + info.param.coupling + "_on_" + info.param.runtime;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

/// admm steps with a gradient of the whole model; allreduce and mdownpour wait for one of every block.
bool must_be_refused(const Pair& pair) {
  if (pair.coupling == "admm") return pair.schedule != "serial";
  return pair.schedule == "lpp" && (pair.coupling == "allreduce" || pair.coupling == "mdownpour");
}

TEST(Pairs, none_is_refused_that_could_work) {
  for (const Pair& pair : pairs()) {
    EXPECT_EQ(!refusal(pair).empty(), must_be_refused(pair)) << pair.schedule << " in " << pair.coupling;
  }
}

}  // namespace couplings_pairs_test
}  // namespace rubato
