// Protocols as text: who read, computed, sent and published what, at which virtual time. To write the files anew:
//   RUBATO_UPDATE_SCENARIOS=1 build/release/tests/rubato_tests --gtest_filter='Scenario*:*/Scenario*'
// and read the difference before it is committed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "rubato/train/trace.h"
#include "support/lab.h"

namespace rubato {
namespace {

struct Scenario {
  const char* file;
  const char* story;
  ScheduleOptions schedule;
};

void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.file; }

std::vector<Scenario> scenarios() {
  return {{"serial", "one worker, three blocks: forward 1 s and backward 2 s per block", {.name = "serial"}},
          {"hogwild", "two workers on one replica; both begin at once, so the second to publish is one version behind",
           {.name = "hogwild", .workers = 2}},
          {"ddg", "three stages of one block each; stage k works on batch t - (3 - k) on its way back",
           {.name = "ddg", .cuts = {1, 2}}},
          {"pd_asgd", "one forward thread, two backward threads, three passes in flight; each block is published as it is ready",
           {.name = "pd-asgd", .forward_threads = 1, .backward_threads = 2, .max_in_flight = 3}}};
}

std::string transcript(const Scenario& scenario) {
  Trace trace;
  test::Lab lab(test::small_model("mlp"), {.schedule = scenario.schedule,
                                           .store = test::sgd(),
                                           .costs = std::vector<BlockCost>(3, BlockCost{1, 2, 0})});
  // Links are so fast that times stay whole seconds: what is told is the order of things.
  lab.run(*make_simulator({.hosts = 3, .link_bytes_per_second = 1e15, .link_latency_seconds = 0}, {.events = &trace}), 0, 4);
  return trace.transcript();
}

class ScenarioTest : public ::testing::TestWithParam<Scenario> {};

TEST_P(ScenarioTest, goes_as_written) {
  const std::string path = std::string(RUBATO_SOURCE_DIR "/tests/scenarios/") + GetParam().file + ".txt";
  const std::string now = std::string("# ") + GetParam().story + "\n" + transcript(GetParam());
  if (std::getenv("RUBATO_UPDATE_SCENARIOS") != nullptr) std::ofstream(path) << now;
  std::ostringstream written;
  written << std::ifstream(path).rdbuf();
  EXPECT_EQ(now, written.str());
}

TEST_P(ScenarioTest, goes_the_same_way_twice) { EXPECT_EQ(transcript(GetParam()), transcript(GetParam())); }

INSTANTIATE_TEST_SUITE_P(All, ScenarioTest, ::testing::ValuesIn(scenarios()),
                         [](const auto& info) { return info.param.file; });

}  // namespace
}  // namespace rubato
