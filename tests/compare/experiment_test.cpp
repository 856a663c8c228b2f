#include "rubato/compare/experiment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "rubato/core/error.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace compare_experiment_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExperimentTest : public ::testing::Test {
 protected:
  Experiment load(const std::string& text, bool full = false) {
    std::ofstream(file) << text;
    return load_experiment(file, full);
  }
  std::string refusal(const std::string& text) {
    try {
      trials_of(load(text));
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  }
  test::TemporaryDirectory folder;
  std::filesystem::path file = folder.path() / "e.toml";
};

constexpr const char* two_methods = R"(
title = "T"
seeds = [1, 2]
[options]
model = "mlp"
quiet = true
straggler = "0:fixed:{=3*delay}ms"
platform = "uniform:{replicas}"
[vary]
delay = [0, 2]
[grid]
replicas = [2, 4]
[[method]]
name = "A"
options = { lr = 0.1, augment = false }
[[method]]
name = "B"
grid = { replicas = [8] }
[full]
seeds = [1]
grid = { replicas = [16] }
)";

TEST_F(ExperimentTest, runs_are_methods_times_axes_times_seeds) {
  const auto trials = trials_of(load(two_methods));
  ASSERT_EQ(trials.size(), 2u * 2 * 2 + 2 * 1 * 2);
  EXPECT_EQ(trials.front().name(), "A-delay=0-replicas=2-seed=1");
  EXPECT_EQ(trials.back().name(), "B-delay=2-replicas=8-seed=2");
  const Flags& flags = trials.back().flags;
  EXPECT_THAT(flags.at("straggler"), ElementsAre("0:fixed:6ms"));
  EXPECT_THAT(flags.at("platform"), ElementsAre("uniform:8"));
  EXPECT_THAT(flags.at("replicas"), ElementsAre("8"));
  EXPECT_THAT(flags.at("seed"), ElementsAre("2"));
  EXPECT_TRUE(flags.at("quiet").empty());  // a flag without value
  EXPECT_FALSE(flags.contains("delay"));   // only stands in others
  EXPECT_FALSE(trials.front().flags.contains("augment"));
  EXPECT_EQ(trials_of(load(two_methods, /*full=*/true)).size(), 2u + 2u);
}

TEST_F(ExperimentTest, what_is_wrong_is_said_with_its_place) {
  EXPECT_THAT(refusal("title = \"T\"\nmethd = 1\n"),
              AllOf(HasSubstr("e.toml:2:"), HasSubstr("unknown key 'methd'"), HasSubstr("'method'")));
  EXPECT_THAT(refusal("[grid]\nworkers = []\n[[method]]\nname = \"A\"\n"), HasSubstr("'workers' needs at least one value"));
  EXPECT_THAT(refusal("seeds = [\"a\"]\n[[method]]\nname = \"A\"\n"), AllOf(HasSubstr("e.toml:1:"), HasSubstr("whole numbers")));
  EXPECT_THAT(refusal("seeds = []\n[[method]]\nname = \"A\"\n"), HasSubstr("whole numbers"));
  EXPECT_THAT(refusal("[[method]]\nname = \"A\"\n[[method]]\nname = \"A\"\n"), HasSubstr("two methods are called 'A'"));
  EXPECT_THAT(refusal("title = \n"), HasSubstr("e.toml:1:"));
  EXPECT_THAT(refusal("title = \"T\"\n"), HasSubstr("at least one [[method]]"));
  EXPECT_THAT(refusal("command = \"eval\"\n[[method]]\nname = \"A\"\n"), HasSubstr("'eval' is neither"));
  EXPECT_THAT(refusal("[options]\nplatform = \"uniform:{p}\"\n[[method]]\nname = \"A\"\n"), HasSubstr("no axis is called 'p'"));
  EXPECT_THAT(refusal("[options]\nplatform = \"uniform:{=1+}\"\n[[method]]\nname = \"A\"\n"), HasSubstr("formula '1+'"));
  EXPECT_THROW(load_experiment(folder.path() / "none.toml"), DataError);
}

TEST_F(ExperimentTest, every_experiment_of_the_repository_can_be_read_small_and_full) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(RUBATO_SOURCE_DIR "/experiments")) {
    if (entry.path().extension() != ".toml") continue;
    ++count;
    for (const bool full : {false, true}) EXPECT_FALSE(trials_of(load_experiment(entry.path(), full)).empty()) << entry.path();
  }
  EXPECT_GE(count, 7);
}

}  // namespace compare_experiment_test
}  // namespace rubato
