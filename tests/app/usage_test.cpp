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
      {{"train", "--schedule", "hogwild", "--stale-weights", "live", "--precision", "bf16"}, "use fp32 or stashed"},
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
      {{"train", "--lr", "1e400"}, "1e400 is too large for a number"},
      {{"train", "--lr", "1e-400"}, "1e-400 is too close to 0 for a number"},
      {{"train", "--lr", "0.05", "--lr", "0,05"}, "--lr: '0,05' is not a number"},
      {{"train", "--lr", ""}, "--lr: an empty value is no number"},
      {{"train", "--lr", "1e39"}, "--lr 1e+39 must be a number of 32 bits"},
      {{"train", "--weight-decay", "1e300"}, "--weight-decay 1e+300 must be a number of 32 bits"},
      {{"train", "--config", ""}, "--config: an empty name"},
      {{"train", "--seed", "-1"}, "--seed: -1 must be a whole number from 0"},
      {{"train", "--width", "-3"}, "--width -3 must be a whole number between 0 and 65536"},
      {{"train", "--width", "99999999"}, "--width 99999999 must be"},
      {{"train", "--evaluate-every", "9223372036854775808"}, "--evaluate-every: 9223372036854775808 must be a whole number from"},
      {{"train", "--schedule", "pd-asgd", "--forward-threads", "9999999999999999999"},
       "--forward-threads: 9999999999999999999 must"},
      {{"train", "--threads-per-role", "100000"}, "--threads-per-role 100000 must be a whole number between 1 and 1024"},
      {{"train", "--coupling", "easgd", "--replicas", "100000"}, "100000 replicas with 1 threads each"},
      {{"train", "--schedule", "pd-asgd", "--forward-threads", "1000000"}, "1 replicas with 1000002 threads each"},
      {{"train", "--schedule", "gpipe", "--stages", "2", "--batch-size", "20", "--micro-batches", "21"},
       "--micro-batches 21 of batches of 20"},
      {{"train", "--inject-delay", "worker-0:nan"}, "milliseconds from 0 to 1e9"},
      {{"train", "--inject-delay", "worker-0:1e300"}, "milliseconds from 0 to 1e9"},
      {{"train", "--inject-delay", "worker-0:0-inf"}, "milliseconds from 0 to 1e9"},
      {{"train", "--stale-weights", "live"}, "no weights of --schedule serial are stale"},
      {{"train", "--probe-bias", "5"}, "no gradient of --schedule serial is stale"},
      {{"status", "nowhere", "--watch", "0"}, "--watch: '0' must be a number from 0.1 to 86400"},
      {{"compare", "nowhere", "--jobs", "0"}, "--jobs: '0' must be a number from 1 to 1024"},
      {{"simulate", "--cores", "x"}, "--cores: 'x' is not a number"},
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
  std::string key = "a";
  for (int i = 0; i < 100'000; ++i) key += ".a";
  EXPECT_THAT(answer("\n" + key + "=1\n"), HasSubstr("run.toml:2: a key of more than 32 parts"));
  EXPECT_THAT(answer("x = " + std::string(200'000, '[')), HasSubstr("not TOML"));
  const Outcome endless = rubato_command({"train", "--config", "/dev/zero"});
  EXPECT_EQ(endless.exit_code, 3);
  EXPECT_THAT(endless.err, HasSubstr("/dev/zero: it is longer than 4 MiB"));
  const Outcome missing = rubato_command({"train", "--config", "/nowhere.toml"});
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_THAT(missing.err, HasSubstr("cannot read /nowhere.toml"));
}

TEST(Usage, comparisons_are_refused_before_their_first_run) {
  const TemporaryDirectory folder;
  const auto answer = [&](const std::string& text) {
    const auto file = folder.path() / "e.toml";
    std::ofstream(file) << text;
    const Outcome outcome = rubato_command({"compare", file, "-o", folder.path() / "out"});
    EXPECT_EQ(outcome.exit_code, 2) << text;
    EXPECT_FALSE(std::filesystem::exists(folder.path() / "out"));
    return outcome.err;
  };
  const std::string method = "[[method]]\nname = \"a\"\n";
  EXPECT_THAT(answer("[vary]\nlr = [0.001]\n[options]\nmomentum = \"{lr}\"\n" + method), HasSubstr("'lr' in [vary] is a flag"));
  EXPECT_THAT(answer("[vary]\nlr = [0.001]\n" + method), HasSubstr("'lr' in [vary]"));
  EXPECT_THAT(answer("[options]\nmoddel = \"mlp\"\n" + method), HasSubstr("did you mean '--model'?"));
  EXPECT_THAT(answer("[options]\nlr = \"x\"\n" + method), HasSubstr("the run a-seed=1: --lr: 'x' is not a number"));
  EXPECT_THAT(answer("seeds = [-1]\n" + method), HasSubstr("--seed: -1 must be a whole number"));
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
