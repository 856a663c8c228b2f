// Protocols as text: who read, computed, sent and published what, at which virtual time. To write the files anew:
//   RUBATO_UPDATE_SCENARIOS=1 build/release/tests/rubato_tests --gtest_filter='Scenario*:*/Scenario*'
// and read the difference before it is committed.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "rubato/observe/trace.h"
#include "support/forked.h"
#include "support/herd.h"

namespace rubato {
namespace scenarios_scenarios_test {

struct Scenario {
  const char* file;
  std::string story;
  ScheduleOptions schedule;
  int batches = 4;
  CouplingOptions coupling = {};
};

void PrintTo(const Scenario& scenario, std::ostream* out) {
  *out << scenario.file;
}

std::vector<Scenario> scenarios() {
  return {{"serial", "one worker, three blocks: forward 1 s and backward 2 s per block", {.name = "serial"}},
          {"hogwild",
           "two workers on one replica; both begin at once, so the second to publish is one version behind",
           {.name = "hogwild", .values = {{"workers", 2}}}},
          {"ddg",
           "three stages of one block each; stage k works on batch t - (3 - k) on its way back",
           {.name = "ddg", .cuts = {1, 2}}},
          {"features_replay",
           "three stages of one block each; those below the top compute each pass again before they go back",
           {.name = "features-replay", .cuts = {1, 2}}},
          {"fdg",
           "three stages of one block each at work at once: stage k, in its iteration t, goes back through batch t - 2 (3 - k)",
           {.name = "fdg", .cuts = {1, 2}},
           8},
          {"dni",
           "three stages of one block each; those below the top update with a predicted gradient and learn from the last batch's",
           {.name = "dni", .cuts = {1, 2}}},
          {"pd_asgd",
           "one forward thread, two backward threads, three passes in flight; each block is published as it is ready",
           {.name = "pd-asgd", .values = {{"forward-threads", 1}, {"backward-threads", 2}, {"max-in-flight", 3}}}},
          {"gpipe",
           "three stages of one block each, two micro-batches: all forwards, then all backwards, then one step",
           {.name = "gpipe", .cuts = {1, 2}, .values = {{"micro-batches", 2}}}},
          {"1f1b",
           "three stages of one block each, four micro-batches: the top goes back through each at once",
           {.name = "1f1b", .cuts = {1, 2}, .values = {{"micro-batches", 4}}}},
          {"lpp",
           "two workers on one replica; the second gradient of each is that of its part, block 0 or blocks 1 and 2",
           {.name = "lpp", .values = {{"workers", 2}}}}};
}

/// Three replicas of one block, forward 1 s and backward 2 s; the second takes 0.5 s more for everything it computes, the third 1
/// s.
std::vector<Scenario> coupled_scenarios() {
  const auto three = [](const char* file, const std::string& story, const char* name, std::int64_t period) {
    return Scenario{file,
                    "three replicas, the second slower than the first, the third slower still: " + story,
                    {.name = "serial"},
                    4,
                    {.name = name, .replicas = 3, .period = period, .values = {{"moving-rate", 0.25}}}};
  };
  return {three("allreduce", "each waits for the mean gradient in every step", "allreduce", 1),
          three("easgd", "every second step all show their weights, and the centre answers when the last has come", "easgd", 2),
          three("async_easgd", "every second step each visits the centre as its gradient begins and is pulled back as it ends",
                "async-easgd", 2),
          three("eamsgd", "as async-easgd; what is shown is the iterate without its look-ahead", "eamsgd", 2),
          three("downpour", "after every second step each pushes what it learned and goes on from the centre", "downpour", 2),
          three("adownpour", "as downpour; the centre also keeps a mean", "adownpour", 2),
          three("mvadownpour", "as downpour; the centre also keeps a moving average", "mvadownpour", 2),
          three("mdownpour", "each gradient goes to the centre, which answers with its weights", "mdownpour", 1),
          three("admm", "the centre gives one turn after the other", "admm", 1),
          three("local_sgd", "after every second step all wait and go on from the mean", "local-sgd", 2),
          three("lap", "after every second step averagers meet; workers go on meanwhile", "lap", 2)};
}

std::string coupled_transcript(const Scenario& scenario) {
  Trace trace;
  StoreOptions store = test::sgd(0.1, 0.5, 0);
  store.optimizer.nesterov = find_coupling(scenario.coupling.name).look_ahead;
  test::Herd herd(test::noisy_quadratic(1),
                  {.schedule = scenario.schedule, .coupling = scenario.coupling, .store = store, .costs = {{1, 2, 0}}});
  const auto runtime = make_simulator(test::Herd::ideal_platform(4),
                                      {.delays = {{"r1/worker-0", 500, 500}, {"r2/worker-0", 1000, 1000}}, .events = &trace});
  herd.run(*runtime, 0, 4);
  return trace.transcript();
}

std::string transcript(const Scenario& scenario) {
  if (scenario.coupling.name != "none") return coupled_transcript(scenario);
  Trace trace;
  test::Lab lab(test::small_model("mlp"),
                {.schedule = scenario.schedule, .store = test::sgd(), .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})});
  // Links are so fast that times stay whole seconds: what is told is the order of things.
  lab.run(*make_simulator(test::Herd::ideal_platform(3), {.events = &trace}), 0, scenario.batches);
  return trace.transcript();
}

std::string fresh_transcript(const Scenario& scenario) {
  return test::in_fresh_process([&] { return transcript(scenario); });
}

class ScenarioTest : public ::testing::TestWithParam<Scenario> {};

TEST_P(ScenarioTest, goes_as_written) {
  const std::string path = std::string(RUBATO_SOURCE_DIR "/tests/scenarios/") + GetParam().file + ".txt";
  const std::string now = std::string("# ") + GetParam().story + "\n" + fresh_transcript(GetParam());
  if (std::getenv("RUBATO_UPDATE_SCENARIOS") != nullptr) std::ofstream(path) << now;
  std::ostringstream written;
  written << std::ifstream(path).rdbuf();
  EXPECT_EQ(now, written.str());
}

TEST_P(ScenarioTest, goes_the_same_way_twice) {
  const std::string first = fresh_transcript(GetParam());
  EXPECT_GT(first.size(), 500u);
  EXPECT_EQ(fresh_transcript(GetParam()), first);
}

INSTANTIATE_TEST_SUITE_P(Coupled, ScenarioTest, ::testing::ValuesIn(coupled_scenarios()),
                         [](const auto& info) { return info.param.file; });
INSTANTIATE_TEST_SUITE_P(All, ScenarioTest, ::testing::ValuesIn(scenarios()), [](const auto& info) { return info.param.file; });

}  // namespace scenarios_scenarios_test
}  // namespace rubato
