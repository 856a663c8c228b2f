#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_usage_test {

using ::testing::HasSubstr;

struct Wrong {
  std::vector<std::string> arguments;
  const char* sentence;  ///< part of what must be said
};

TEST(Usage, wrong_flags_get_one_sentence_with_the_way_out_and_exit_code_2) {
  const std::vector<Wrong> cases = {
      {{"train", "--schedul", "ddg"}, "did you mean '--schedule'?"},
      {{"train", "--schedule", "dgd"}, "did you mean 'ddg'?"},
      {{"train", "--model", "resnet9"}, "did you mean 'resnet8'?"},
      {{"train", "--data", "fashion_mnist"}, "did you mean 'fashion-mnist'?"},
      {{"train", "--optimizer", "adamv"}, "did you mean 'adam"},
      {{"train", "--coupling", "easdg"}, "unknown coupling 'easdg'"},
      {{"train", "--batch-size", "0"}, "--batch-size 0"},
      {{"train", "--epochs", "many"}, "many"},
      {{"train", "--lr", "nan"}, "--lr nan"},
      {{"train", "--momentum", "1.5"}, "between 0 and 1"},
      {{"train", "--replicas", "2"}, "never meet"},
      {{"train", "--schedule", "pd-asgd", "--stale-weights", "replayed"}, "use stashed or live"},
      {{"train", "--stale-weights", "live", "--precision", "bf16"}, "use fp32 or stashed"},
      {{"train", "--schedule", "features-replay", "--stale-weights", "live"}, "use --schedule ddg"},
      {{"train", "--schedule", "fdg", "--gradient-shrinking", "0", "--cuts", "2"}, "only the last stage would learn"},
      {{"train", "--schedule", "ddg", "--stages", "9"}, "5 blocks"},
      {{"train", "--schedule", "ddg", "--stages", "3", "--cuts", "3,2"}, "must increase strictly"},
      {{"train", "--schedule", "1f1b", "--stages", "2", "--stale-weights", "live"}, "leave --stale-weights at stashed"},
      {{"train", "--schedule", "gpipe", "--micro-batches", "0"}, "--micro-batches 0"},
      {{"train", "--schedule", "lpp", "--workers", "9", "--steps", "1"}, "use at most 5 workers"},
      {{"train", "--schedule", "lpp", "--coupling", "allreduce"}, "a coupling of weights like lap"},
      {{"train", "--coupling", "lap", "--replicas", "1"}, "needs at least 2 replicas"},
      {{"train", "--coupling", "async-easgd", "--moving-rate", "1.5"}, "is beyond 0.9744 = (4 - 2 lr) / (4 - lr)"},
      {{"train", "--coupling", "easgd", "--period", "-3"}, "--period -3 must be"},
      {{"train", "--nesterov", "--momentum", "0"}, "--nesterov needs"},
      {{"train", "--model", "lstm-char"}, "does not fit"},
      {{"train", "--device", "cuda:0"}, "no CUDA device"},
      {{"train", "--inject-delay", "worker-0"}, "ROLE:MS"},
      {{"simulate", "--platform", "ring:3"}, "uniform:N"},
      {{"profile", "--pipeline", "1f2b"}, "did you mean '1f1b'?"},
      {{"list", "schedulers"}, "did you mean 'schedules'?"},
      {{"launch", "-n", "2", "--", "train", "--coupling", "easgdd"}, "did you mean 'easgd'?"},
      {{"launch", "-n", "2", "--", "train", "--schedul", "ddg"}, "did you mean '--schedule'?"},
      {{"launch", "-n", "2", "--", "train", "--coupling", "easgd", "--stages", "2"}, "--stages is for"},
      {{"launch", "-n", "3", "--", "train", "--schedule", "ddg", "--stages", "2"}, "--stages 2 on 3 processes"},
      {{"launch", "-n", "2", "--", "train", "--coupling", "admm", "--when-worker-dies", "continue"}, "use wait or stop"},
      {{}, "subcommand"},
  };
  for (const Wrong& wrong : cases) {
    const Outcome outcome = rubato_command(wrong.arguments);
    EXPECT_EQ(outcome.exit_code, 2) << wrong.sentence;
    EXPECT_THAT(outcome.err, HasSubstr(wrong.sentence));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

TEST(Usage, wrong_configuration_files_are_answered_with_file_and_line) {
  const TemporaryDirectory folder;
  const auto answer = [&](const std::string& text) {
    const auto file = folder.path() / "run.toml";
    std::ofstream(file) << text;
    const Outcome outcome = rubato_command({"train", "--config", file});
    EXPECT_EQ(outcome.exit_code, 2);
    return outcome.err;
  };
  EXPECT_THAT(answer("epochs = 1\nschedulee = \"ddg\"\n"), HasSubstr("run.toml:2:1: unknown key 'schedulee'"));
  EXPECT_THAT(answer("epochs = \"1\"\n"), HasSubstr("run.toml:1:"));
  EXPECT_THAT(answer("epochs = \n"), HasSubstr("not TOML"));
  const Outcome missing = rubato_command({"train", "--config", "/nowhere.toml"});
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_THAT(missing.err, HasSubstr("cannot read /nowhere.toml"));
}

TEST(Usage, help_teaches_and_lists_name_everything) {
  const Outcome help = rubato_command({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, HasSubstr("Exit codes: 0 done; 1 out of memory"));
  EXPECT_THAT(rubato_command({"train", "--help"}).out, HasSubstr("--max-in-flight"));
  EXPECT_THAT(rubato_command({"list", "schedules"}).out, HasSubstr("pd-asgd"));
  const Outcome pipeline = rubato_command({"profile", "--pipeline", "1f1b", "--stages", "2", "--micro-batches", "2"});
  EXPECT_EQ(pipeline.exit_code, 0);
  EXPECT_THAT(pipeline.out, HasSubstr("stage 1: F0 B0 F1 B1 S  (peak activations 1)"));
  EXPECT_THAT(pipeline.out, HasSubstr("stage 1  .  F0 B0 B0 F1 B1 B1 .  .\n"));
  EXPECT_THAT(pipeline.out, HasSubstr("bubble: 33.3%"));
  EXPECT_THAT(rubato_command({"list", "models"}).out, HasSubstr("wrn28-10"));
}

TEST(BadData, names_file_and_sizes_and_exits_with_3) {
  const TemporaryDirectory folder;
  const auto data = folder.path() / "data", run = folder.path() / "run";
  std::filesystem::create_directory(data);
  const Outcome missing = rubato_command(small_run(data, run));
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_THAT(missing.err, HasSubstr("train-images-idx3-ubyte"));

  write_small_mnist(data);
  std::filesystem::resize_file(data / "train-images-idx3-ubyte", 5000);
  const Outcome truncated = rubato_command(small_run(data, run));
  EXPECT_EQ(truncated.exit_code, 3);
  EXPECT_THAT(truncated.err, HasSubstr("156816"));  // 16 + 200 x 28 x 28
  EXPECT_THAT(truncated.err, HasSubstr("5000"));

  write_small_mnist(data);
  std::fstream(data / "train-labels-idx1-ubyte", std::ios::in | std::ios::out | std::ios::binary).seekp(13).put(11);
  const Outcome mislabelled = rubato_command(small_run(data, run));
  EXPECT_EQ(mislabelled.exit_code, 3);
  EXPECT_THAT(mislabelled.err, HasSubstr("label 11 of sample 5"));
  EXPECT_FALSE(std::filesystem::exists(run));
}

}  // namespace app_usage_test
}  // namespace rubato::test
