// `rubato simulate` and `rubato compare` as users call them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_simulate_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Simulate : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(data);
    write_small_mnist(data);
  }
  Outcome simulate(std::vector<std::string> flags) {
    std::vector<std::string> all = small_run(data, run, {});
    all.front() = "simulate";
    all.insert(all.end(), flags.begin(), flags.end());
    return rubato_command(all);
  }
  TemporaryDirectory folder;
  std::filesystem::path data = folder.path() / "data", run = folder.path() / "run";
};

TEST_F(Simulate, time_only_takes_the_time_of_the_real_thing) {
  const std::vector<std::string> cluster = {"--coupling",    "async-easgd", "--replicas",  "3",
                                            "--platform",    "lan-1g:4",    "--steps",     "12",
                                            "--block-costs", "1ms:2ms",     "--straggler", "1:random:3ms"};
  std::vector<std::string> computed = cluster;
  computed.insert(computed.end(), {"--evaluate-every", "1000"});
  ASSERT_EQ(simulate(computed).exit_code, 0);
  const std::string real = content_of(run / "summary.json");
  run = folder.path() / "dry_run";
  std::vector<std::string> dry_run = cluster;
  dry_run.push_back("--no-compute");
  const Outcome outcome = simulate(dry_run);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::string timed = content_of(run / "summary.json");
  EXPECT_EQ(json_value(timed, "test_accuracy"), "null");
  EXPECT_EQ(json_value(timed, "virtual_seconds"), json_value(real, "virtual_seconds"));
}

/// Never samples per second of this machine's clock beside virtual time.
TEST_F(Simulate, speeds_are_by_virtual_time) {
  const Outcome outcome = simulate({"--epochs", "1", "--platform", "gpus:1"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::string summary = content_of(run / "summary.json");
  const double wanted = std::stod(json_value(summary, "samples_per_second"));
  EXPECT_NEAR(wanted, 200 / std::stod(json_value(summary, "virtual_seconds")), 1e-6 * wanted);
  const std::size_t end = outcome.out.find(" samples/s of virtual time"), begin = outcome.out.rfind(' ', end - 1);
  ASSERT_NE(end, std::string::npos) << outcome.out;
  EXPECT_NEAR(std::stod(outcome.out.substr(begin, end - begin)), wanted, 1) << outcome.out;
  EXPECT_GT(std::stod(json_value(summary, "device-gflops")), 10000);
}

/// Passes over the data are those of the replicas that were there.
TEST_F(Simulate, who_dies_or_comes_late_counts_for_what_it_took) {
  for (const std::vector<std::string>& event : {std::vector<std::string>{"--dies", "1:50ms"}, {"--joins", "2:95ms"}}) {
    std::filesystem::remove_all(run);
    std::vector<std::string> flags = {"--coupling", "async-easgd", "--period",   "2",        "--replicas",    "3",
                                      "--steps",    "20",          "--platform", "lan-1g:4", "--block-costs", "3ms:6ms"};
    flags.insert(flags.end(), event.begin(), event.end());
    const Outcome outcome = simulate(flags);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const std::string summary = content_of(run / "summary.json");
    const double virtual_seconds = std::stod(json_value(summary, "virtual_seconds"));
    const double epochs = std::stod(json_value(summary, "epochs"));
    EXPECT_NEAR(epochs * 200, std::stod(json_value(summary, "samples_per_second")) * virtual_seconds, 1e-6);
    EXPECT_LT(epochs, 3 * 20 * 16 / 200.0 - 0.1) << event.front();
  }
}

TEST_F(Simulate, tests_come_when_they_are_asked_for_and_a_target_loss_is_noted) {
  const auto tests = [&](const std::string& every) {
    std::filesystem::remove_all(run);
    const Outcome outcome = simulate({"--epochs", "3", "--evaluate-every", every, "--target-loss", "5"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const std::string text = content_of(run / "metrics.jsonl");
    std::size_t count = 0;
    for (std::size_t at = text.find("test_accuracy"); at != std::string::npos; at = text.find("test_accuracy", at + 1)) ++count;
    return count;
  };
  EXPECT_EQ(tests("0"), 3u);   // 13 batches an epoch
  EXPECT_EQ(tests("10"), 6u);  // 10, 13, 20, 26, 30, 39
  EXPECT_EQ(tests("-1"), 1u);
  EXPECT_EQ(json_value(content_of(run / "summary.json"), "seconds_to_loss"), "null");  // fewer than 50 batches
}

TEST_F(Simulate, a_replica_that_dies_does_not_end_the_run_unless_it_is_the_last) {
  const std::vector<std::string> cluster = {"--coupling", "async-easgd", "--replicas",    "2",       "--platform", "lan-1g:3",
                                            "--steps",    "12",          "--block-costs", "1ms:2ms", "--dies",     "0:20ms"};
  const Outcome one = simulate(cluster);
  EXPECT_EQ(one.exit_code, 0) << one.err;
  run = folder.path() / "both";
  std::vector<std::string> both = cluster;
  both.insert(both.end(), {"--dies", "1:30ms"});
  const Outcome none = simulate(both);
  EXPECT_EQ(none.exit_code, 3);
  EXPECT_THAT(none.err, HasSubstr("no replica is left"));
}

TEST_F(Simulate, what_cannot_be_is_said_in_a_sentence) {
  const auto says = [&](std::vector<std::string> flags, const std::string& text) {
    const Outcome outcome = simulate(flags);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(text));
    EXPECT_FALSE(std::filesystem::exists(run / "summary.json"));
    std::filesystem::remove_all(run);
  };
  says({"--coupling", "allreduce", "--dies", "0:1s"}, "its replicas wait for each other; use async-easgd");
  says({"--coupling", "async-easgd", "--replicas", "2", "--platform", "uniform:3", "--dies", "2:1s"}, "runs 'centre'");
  says({"--coupling", "async-easgd", "--platform", "uniform:9", "--dies", "8:1s"}, "no role runs on that host");
  says({"--joins", "0"}, "HOST:TIME");
  says({"--block-costs", "2ms"}, "FORWARD:BACKWARD");
  says({"--block-costs", "1ms:2ms,1ms:2ms"}, "gives 2 costs for 3 blocks");
  says({"--no-compute", "--record"}, "leave --init-from, --resume and --record out");
  says({"--cores", "0"}, "--cores 0 must be at least 1");
}

TEST_F(Simulate, bad_profiles_are_named_with_their_line) {
  const std::filesystem::path profile = folder.path() / "p.json";
  std::ofstream(profile)
      << "{\n \"blocks\": [\n  {\"name\": \"a\", \"forward_seconds\": 1, \"backward_seconds\": 1},\n  {\"name\": \"b\"}\n]}\n";
  const Outcome outcome = simulate({"--profile", profile.string()});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("p.json, line 4"), HasSubstr("forward_seconds")));
  std::ofstream(profile) << "{\n \"blocks\": [\n  {]\n";
  EXPECT_THAT(simulate({"--profile", profile.string()}).err, HasSubstr("line 3"));
}

TEST_F(Simulate, asks_what_if_of_a_recorded_run) {
  const Outcome recorded =
      rubato_command(small_run(data, run, {"--schedule", "hogwild", "--workers", "2", "--record", "--steps", "40"}));
  ASSERT_EQ(recorded.exit_code, 0) << recorded.err;
  const std::string other = (folder.path() / "more").string();
  const Outcome more =
      rubato_command({"simulate", "--from", run.string(), "--workers", "4", "--cores", "4", "--run-dir", other, "--no-compute"});
  ASSERT_EQ(more.exit_code, 0) << more.err;
  EXPECT_THAT(more.out, AllOf(HasSubstr("recorded: 40 steps in"), HasSubstr("an error of"), HasSubstr("virtual time:")));
  EXPECT_THAT(content_of(folder.path() / "more" / "summary.json"), HasSubstr("\"predicted_seconds\""));
  const Outcome wrong = rubato_command({"simulate", "--from", run.string(), "--batch-size", "7", "--run-dir", other + "2"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("another --batch-size"));
}

TEST_F(Simulate, compares_methods_and_goes_on_where_it_was) {
  const std::filesystem::path file = folder.path() / "e.toml", out = folder.path() / "out";
  std::ofstream(file)
      << "title = \"T\"\nbaseline = \"one\"\n[options]\ndata = \"mnist\"\ndata-dir = \"" << data.string()
      << "\"\nmodel = \"mlp\"\nwidth = 8\nbatch-size = 16\nsteps = 6\nblock-costs = \"1ms:2ms\"\nplatform = \"uniform:4\"\n"
         "[[method]]\nname = \"one\"\n[[method]]\nname = \"two\"\noptions = { schedule = \"hogwild\" }\ngrid = { workers = [2, "
         "3] }\n"
         "[[column]]\nname = \"speed-up\"\nformula = \"base_virtual_seconds / virtual_seconds\"\n"
         "[[picture]]\nfile = \"p.svg\"\nx = \"workers\"\ny = \"speed-up\"\n";
  const std::vector<std::string> command = {"compare", file.string(), "--jobs",    "2",
                                            "-o",      out.string(),  "--publish", (folder.path() / "doc").string()};
  const Outcome first = rubato_command(command);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.out, AllOf(HasSubstr("| two | 2 | 2"), HasSubstr("| two | 3 | 3")));
  EXPECT_THAT(content_of(folder.path() / "doc" / "e.md"), HasSubstr("# T"));
  EXPECT_THAT(content_of(folder.path() / "doc" / "p.svg"), HasSubstr("<svg"));
  const Outcome second = rubato_command(command);
  EXPECT_THAT(second.err, HasSubstr("done before"));
  EXPECT_EQ(second.out, first.out);
}

}  // namespace app_simulate_test
}  // namespace rubato::test
