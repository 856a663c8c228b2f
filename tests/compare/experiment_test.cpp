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

/// Not after hours of runs.
TEST_F(ExperimentTest, what_would_be_wrong_in_the_end_is_said_at_the_beginning) {
  const std::string head = "baseline = \"A\"\nacross = \"lr\"\n",
                    body = "[grid]\nlr = [0.1, 0.2]\n[[method]]\nname = \"A\"\n[[column]]\nname = \"c\"\nformula = \"seconds\"\n";
  EXPECT_EQ(refusal(head + body), "");
  EXPECT_THAT(refusal("baseline = \"zz\"\n" + body), HasSubstr("unknown method for 'baseline' 'zz'"));
  EXPECT_THAT(refusal("across = \"zz\"\n" + body), HasSubstr("unknown axis for 'across' 'zz'"));
  EXPECT_THAT(refusal("seeds = [1, 1]\n" + body), HasSubstr("two runs are called A-lr=0.1-seed=1"));
  EXPECT_THAT(refusal("[grid]\nlr = [0.05, 0.05]\n[[method]]\nname = \"A\"\n"), HasSubstr("two runs are called"));
  EXPECT_THAT(refusal(body + "[[method]]\nname = \"\"\n"), HasSubstr("a [[method]] needs a name"));
  EXPECT_THAT(refusal("[[method]]\nname = \"a b\"\n[[method]]\nname = \"a_b\"\n"), HasSubstr("two runs are called a_b"));
  for (const char* flag : {"run-dir", "resume", "seed"}) {
    EXPECT_THAT(refusal(body + "[options]\n" + flag + " = \"1\"\n"), HasSubstr("cannot be an option of the runs"));
    EXPECT_THAT(refusal(body + "[[method]]\nname = \"B\"\ngrid = { " + flag + " = [1] }\n"), HasSubstr("cannot be an option"));
  }
  EXPECT_THAT(refusal(body + "[vary]\nx = [1, 2]\n"), HasSubstr("'x' in [vary] stands in no value as {x}"));
  EXPECT_THAT(refusal(body + "[vary]\nx = [1, 2]\n[options]\nwidth = \"{=xx}\"\n"), HasSubstr("'x' in [vary]"));
}

TEST_F(ExperimentTest, columns_and_pictures_are_checked_before_the_first_run) {
  const std::string body = "[grid]\nlr = [0.1, 0.2]\n[[method]]\nname = \"A\"\n[[column]]\nname = \"c\"\n";
  const auto column = [&](const std::string& more) { return refusal(body + more); };
  EXPECT_EQ(column("formula = \"1 / seconds\"\n"), "");
  EXPECT_THAT(column("formula = \"\"\n"), HasSubstr("needs a formula, or 'by' and 'values'"));
  EXPECT_THAT(column("formula = \"a +\"\n"), HasSubstr("column 'c': formula 'a +'"));
  EXPECT_THAT(column("by = \"zz\"\nvalues = { a = 1 }\n"), HasSubstr("unknown axis for 'by'"));
  EXPECT_THAT(column("by = \"lr\"\nvalues = { a = \"(\" }\n"), HasSubstr("formula '('"));
  for (const char* digits : {"-5", "0", "1000000", "4294967299"}) {
    EXPECT_THAT(column(std::string("formula = \"1\"\ndigits = ") + digits + "\n"), HasSubstr("digits")) << digits;
  }
  EXPECT_THAT(column("formula = \"1\"\n[[column]]\nname = \"c\"\nformula = \"2\"\n"), HasSubstr("two columns are called 'c'"));
  const auto picture = [&](const std::string& text) { return refusal(body + "formula = \"1\"\n[[picture]]\n" + text); };
  const std::string good = "x = \"lr\"\ny = \"c\"\n";
  EXPECT_EQ(picture("file = \"p.svg\"\n" + good), "");
  for (const char* file : {"../../../x", "/x", "a/b.svg", "", "..", "table.md", "runs"}) {
    EXPECT_THAT(picture(std::string("file = \"") + file + "\"\n" + good), HasSubstr("must be a name in the folder")) << file;
  }
  EXPECT_THAT(picture("file = \"p\"\nkind = \"pie\"\n" + good), HasSubstr("unknown kind of picture 'pie'"));
  EXPECT_THAT(picture("file = \"p\"\nx = \"zz\"\ny = \"c\"\n"), HasSubstr("unknown axis for 'x'"));
  EXPECT_THAT(picture("file = \"p\"\nx = \"lr\"\ny = \"zz\"\n"), HasSubstr("unknown column"));
  EXPECT_THAT(picture("file = \"p\"\nmethods = [\"zz\"]\n" + good), HasSubstr("unknown method of picture p 'zz'"));
}

/// A thread's stack is not endless.
TEST_F(ExperimentTest, keys_of_very_many_parts_are_refused) {
  std::string key = "a";
  for (int i = 0; i < 100'000; ++i) key += ".a";
  EXPECT_THAT(refusal(key + " = 1\n"), HasSubstr("e.toml:1: a key of more than 32 parts"));
  EXPECT_THAT(refusal("title = \"T\"\n[" + key + "]\n"), HasSubstr("e.toml:2: a key of more"));
  EXPECT_EQ(refusal("text = \"\"\"" + key + "\"\"\"\n[[method]]\nname = \"A\"\n# " + key + "\n"), "");
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
