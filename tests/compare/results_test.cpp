#include "rubato/compare/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>

#include "rubato/compare/picture.h"
#include "rubato/compare/runner.h"
#include "rubato/core/error.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace compare_results_test {

using ::testing::HasSubstr;

/// Two methods at K = 1, 2 with two seeds; "slow" takes 4 s and 8 s, "fast" half of it, seed 2 a second more.
class ResultsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* method : {"slow", "fast"}) {
      for (const char* k : {"1", "2"}) {
        for (const std::int64_t seed : {1, 2}) {
          const Trial trial{.method = method, .point = {{"K", k}}, .seed = seed};
          const double seconds = (method[0] == 's' ? 4.0 : 2.0) * std::stod(k) + static_cast<double>(seed - 1);
          std::filesystem::create_directories(folder_of(trial, folder.path()));
          std::ofstream(folder_of(trial, folder.path()) / "summary.json")
              << "{\"status\": \"done\", \"seconds\": " << seconds << ", \"bias\": {\"mean\": 0.5, \"bound\": null}}";
          trials.push_back(trial);
        }
      }
    }
    experiment.baseline = "slow";
    experiment.columns = {{.name = "s", .formula = "seconds"},
                          {.name = "speed-up", .formula = "base_seconds / seconds"},
                          {.name = "published", .by = "K", .values = {{"2", "3/2"}}},
                          {.name = "bound", .formula = "bias_bound"}};
  }
  std::vector<Row> rows() { return rows_of(experiment, read_results(experiment, trials, folder.path())); }

  test::TemporaryDirectory folder;
  Experiment experiment;
  std::vector<Trial> trials;
};

TEST_F(ResultsTest, a_formula_with_a_figure_that_no_run_knows_is_refused) {
  experiment.columns.push_back({.name = "typo", .formula = "base_secnds / seconds"});
  try {
    rows();
    FAIL() << "a '-' would hide it";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("column 'typo': no run has a figure 'base_secnds': did you mean 'base_seconds'?"));
  }
}

TEST_F(ResultsTest, cells_are_means_over_seeds_of_formulas_against_the_baseline) {
  const auto all = rows();
  ASSERT_EQ(all.size(), 4u);
  const Row& fast_2 = all[3];
  EXPECT_EQ(fast_2.point.method, "fast");
  EXPECT_DOUBLE_EQ(fast_2.cells[0].mean(), 4.5);
  EXPECT_NEAR(fast_2.cells[0].deviation(), 0.7071, 1e-4);
  EXPECT_DOUBLE_EQ(fast_2.cells[1].mean(), (8.0 / 4 + 9.0 / 5) / 2);
  EXPECT_DOUBLE_EQ(fast_2.cells[2].mean(), 1.5);
  EXPECT_EQ(all[0].cells[2].text(3), "-");  // nothing published for K = 1
  EXPECT_EQ(fast_2.cells[3].text(3), "-");  // null
}

TEST_F(ResultsTest, tables_are_long_or_wide) {
  EXPECT_THAT(table_of(experiment, rows()), HasSubstr("| method | K | s | speed-up | published | bound |\n"));
  EXPECT_THAT(table_of(experiment, rows()), HasSubstr("| fast | 2 | 4.5 ± 0.71 | 1.9 ± 0.14 | 1.5 ± 0 | - |\n"));
  experiment.across = "K";
  EXPECT_THAT(table_of(experiment, rows()),
              HasSubstr("s:\n\n| method | K 1 | K 2 |\n| --- | --- | --- |\n| slow | 4.5 ± 0.71 | 8.5"));
}

TEST_F(ResultsTest, formulas_and_results_that_cannot_be_read_are_named) {
  experiment.columns = {{.name = "x", .formula = "seconds +"}};
  EXPECT_THROW(rows(), UsageError);
  experiment.columns = {{.name = "x", .formula = "unheard_of"}};
  EXPECT_THROW(rows(), UsageError);
  std::ofstream(folder_of(trials[0], folder.path()) / "summary.json") << "{";
  EXPECT_THROW(rows(), DataError);
}

TEST_F(ResultsTest, pictures_are_svg_with_a_line_per_method) {
  const Picture picture{.file = "p.svg", .title = "say \"hi\"\nplot 'x'", .x = "K", .y = "s"};
  draw(picture, experiment, read_results(experiment, trials, folder.path()), folder.path(), folder.path() / "p.svg");
  std::stringstream svg;
  svg << std::ifstream(folder.path() / "p.svg").rdbuf();
  EXPECT_THAT(svg.str(), HasSubstr("<svg"));
  EXPECT_THAT(svg.str(), HasSubstr("slow"));
  EXPECT_THAT(svg.str(), HasSubstr("fast"));
  Picture wrong = picture;
  wrong.y = "sped-up";
  EXPECT_THROW(draw(wrong, experiment, read_results(experiment, trials, folder.path()), folder.path(), folder.path() / "q.svg"),
               UsageError);
}

/// A stand-in for the command: writes what a run would, or fails.
class RunnerTest : public ::testing::Test {
 protected:
  void program(const std::string& body) {
    std::ofstream(script) << "#!/bin/sh\nwhile [ \"$1\" != --run-dir ]; do shift; done\n" << body << "\n";
    std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  }
  std::size_t run(int jobs = 2) {
    std::size_t fresh = 0;
    run_trials("simulate", trials,
               {.program = script.string(),
                .folder = folder.path(),
                .jobs = jobs,
                .ended = [&](auto, auto, auto&, double seconds, auto&) {
                  if (seconds > 0) ++fresh;
                }});
    return fresh;
  }
  test::TemporaryDirectory folder;
  std::filesystem::path script = folder.path() / "program";
  std::vector<Trial> trials = {{.method = "A", .flags = {{"lr", {"0.1"}}}}, {.method = "B"}, {.method = "C"}};
};

TEST_F(RunnerTest, finished_runs_are_not_run_again_unless_their_flags_change) {
  program("mkdir -p $2 && echo '{}' > $2/summary.json");
  EXPECT_EQ(run(), 3u);
  EXPECT_EQ(run(), 0u);
  trials[0].flags["lr"] = {"0.2"};
  EXPECT_EQ(run(1), 1u);
}

TEST_F(RunnerTest, a_run_that_diverges_is_a_result_and_one_that_fails_ends_the_comparison) {
  program("mkdir -p $2 && echo '{}' > $2/summary.json; exit 4");
  EXPECT_EQ(run(), 3u);
  trials[0].method = "D";
  program("echo 'rubato: no such thing' >&2; exit 2");
  try {
    run();
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("no such thing"));
  }
}

}  // namespace compare_results_test
}  // namespace rubato
