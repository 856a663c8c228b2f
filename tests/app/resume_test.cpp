// Runs that go on elsewhere: in one process, with more workers, with other data or another text; and jobs that fail.
#include <stdlib.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/background.h"
#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_resume_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;
namespace fs = std::filesystem;

/// Of this process and its children while it lives.
class Variables {
 public:
  explicit Variables(const std::map<std::string, std::string>& variables) : variables_(variables) {
    for (const auto& [name, value] : variables_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variables() {
    for (const auto& [name, value] : variables_) unsetenv(name.c_str());
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  std::map<std::string, std::string> variables_;
};

class GoesOn : public ::testing::Test {
 protected:
  void SetUp() override {
    data = folder.path() / "data";
    fs::create_directory(data);
    write_small_mnist(data);
  }
  std::string run(const std::string& name) const { return (folder.path() / name).string(); }
  Words launched(int workers, const Words& command) const {
    Words words = {"launch", "-n", std::to_string(workers), "--"};
    words.insert(words.end(), command.begin(), command.end());
    return words;
  }
  Words train(const std::string& name, const Words& more) const { return small_run(data, run(name), more); }
  nlohmann::json summary(const std::string& name) const { return json_of(fs::path(run(name)) / "summary.json"); }
  static void ends_well(const Words& words) {
    const Outcome outcome = rubato_command(words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  }

  TemporaryDirectory folder;
  fs::path data;
};

/// A coordinator keeps the centre of such a job, not its replicas: they begin with the centre's weights, not with the initial
/// ones.
TEST_F(GoesOn, a_launched_job_with_a_centre_in_one_process) {
  const Words flags = {"--coupling", "downpour", "--period", "1", "--momentum", "0"};
  const auto epochs = [&](const char* number) {
    Words words = flags;
    words.insert(words.end(), {"--epochs", number});
    return words;
  };
  ends_well(launched(1, train("whole", epochs("3"))));
  ends_well(launched(1, train("parts", epochs("2"))));
  ends_well({"train", "--resume", run("parts"), "--epochs", "3", "--quiet"});
  EXPECT_EQ(summary("parts")["steps"], summary("whole")["steps"]);
  EXPECT_EQ(summary("parts")["test_loss"], summary("whole")["test_loss"]);
  EXPECT_EQ(summary("parts")["weights_digest"], summary("whole")["weights_digest"]);
}

/// A step rate that has fallen to a hundredth stays there.
TEST_F(GoesOn, averaging_replicas_with_the_rate_that_they_had) {
  const Words flags = {"--coupling",       "lap",  "--lr-schedule", "step", "--lr-step-epochs", "1",
                       "--lr-step-factor", "1e-6", "--momentum",    "0"};
  Words first = flags;
  first.insert(first.end(), {"--epochs", "2"});
  ends_well(launched(2, train("run", first)));
  const double before = summary("run")["test_loss"];
  ends_well(launched(2, {"train", "--resume", run("run"), "--epochs", "4", "--quiet"}));
  EXPECT_NEAR(summary("run")["test_loss"].get<double>(), before, 0.02 * before) << "at a rate of 1e-12 nothing moves";
}

TEST_F(GoesOn, more_workers_and_the_newest_checkpoint_is_the_newest) {
  ends_well(launched(2, train("run", {"--coupling", "async-easgd", "--epochs", "4"})));
  ends_well(launched(4, {"train", "--resume", run("run"), "--epochs", "8", "--quiet"}));
  const std::string latest = content_of(fs::path(run("run")) / "checkpoint/latest");
  const fs::path newest = fs::path(run("run")) / "checkpoint" / latest.substr(0, latest.size() - 1);
  ASSERT_TRUE(fs::exists(newest));
  EXPECT_EQ(json_of(newest / "state.json")["step"], summary("run")["steps"]);
  const Outcome eval = rubato_command({"eval", "--checkpoint", run("run"), "--json"});
  EXPECT_EQ(nlohmann::json::parse(eval.out)["test_loss"], summary("run")["test_loss"]);
}

TEST_F(GoesOn, as_long_as_the_last_word_says) {
  ends_well(train("run", {"--steps", "5"}));
  ends_well({"train", "--resume", run("run"), "--epochs", "2", "--quiet"});
  EXPECT_EQ(summary("run")["steps"], 26) << "two epochs of 13 batches";
  const Outcome both = rubato_command({"train", "--resume", run("run"), "--epochs", "2", "--steps", "3"});
  EXPECT_EQ(both.exit_code, 2);
  EXPECT_THAT(both.err, HasSubstr("--epochs and --steps both say"));
  std::ofstream(folder.path() / "both.toml") << "epochs = 2\nsteps = 3\n";
  EXPECT_EQ(rubato_command(train("other", {"--config", (folder.path() / "both.toml").string()})).exit_code, 2);
}

/// Four replicas of one batch per epoch: a step of each takes four passes.
TEST_F(GoesOn, passes_over_the_data_are_those_of_all_replicas) {
  ends_well(
      train("run", {"--batch-size", "200", "--coupling", "easgd", "--replicas", "4", "--sampling", "shard", "--epochs", "8"}));
  EXPECT_EQ(summary("run")["steps"], 2);
  EXPECT_EQ(summary("run")["epochs"], 8);
  ends_well(
      train("odd", {"--batch-size", "200", "--coupling", "easgd", "--replicas", "4", "--sampling", "shard", "--epochs", "3"}));
  EXPECT_EQ(summary("odd")["epochs"], 4) << "it says what it did";
}

TEST_F(GoesOn, its_own_configuration_repeats_the_run_elsewhere) {
  ends_well(train("run", {"--steps", "5"}));
  const Outcome again = rubato_command({"train", "--config", run("run") + "/config.toml", "--json", "--checkpoint-every", "-1"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(nlohmann::json::parse(again.out)["weights_digest"], summary("run")["weights_digest"]);
}

TEST_F(GoesOn, not_in_two_processes_at_once) {
  Background first(train("run", {"--steps", "10000000", "--evaluate-every", "-1"}), folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return fs::exists(fs::path(run("run")) / "checkpoint/latest"); }));
  const Outcome second = rubato_command({"train", "--resume", run("run"), "--quiet"});
  EXPECT_EQ(second.exit_code, 2) << second.err;
  EXPECT_THAT(second.err, HasSubstr("is being written by another run (process "));
}

/// Tokens are characters of the text that the model was trained on.
TEST_F(GoesOn, a_text_model_reads_other_texts_with_its_own_vocabulary) {
  const auto text = [&](const std::string& name, const std::string& letters) {
    std::ofstream file(folder.path() / name);
    for (int i = 0; i < 2000; ++i) file << letters[static_cast<std::size_t>(i) % letters.size()];
    return (folder.path() / name).string();
  };
  const std::string aceg = text("aceg.txt", "aceg"), gaec = text("gaec.txt", "gaec"), iceg = text("iceg.txt", "iceg"),
                    two = text("two.txt", "ac");
  ends_well(
      {"train", "--data",       "text", "--data-dir", aceg, "--model", "lstm-char", "--width",   "16",       "--sequence-length",
       "8",     "--batch-size", "8",    "--epochs",   "8",  "--lr",    "0.1",       "--run-dir", run("run"), "--quiet"});
  const double accuracy = summary("run")["test_accuracy"];
  EXPECT_GT(accuracy, 90);
  const auto eval = [&](const std::string& file) {
    return rubato_command({"eval", "--checkpoint", run("run"), "--data-dir", file, "--json"});
  };
  EXPECT_GT(nlohmann::json::parse(eval(aceg).out)["test_accuracy"].get<double>(), 90);
  EXPECT_LT(nlohmann::json::parse(eval(gaec).out)["test_accuracy"].get<double>(), 60) << "another order is another text";
  EXPECT_LT(nlohmann::json::parse(eval(two).out)["test_accuracy"].get<double>(), 90) << "a and c are the tokens that they were";
  for (const Words& words : {Words{"eval", "--checkpoint", run("run"), "--data-dir", iceg},
                             Words{"train", "--resume", run("run"), "--data-dir", iceg, "--epochs", "9"},
                             Words{"train", "--init-from", run("run"), "--data", "text", "--data-dir", iceg, "--model",
                                   "lstm-char", "--width", "16", "--sequence-length", "8", "--run-dir", run("new")}}) {
    const Outcome refused = rubato_command(words);
    EXPECT_EQ(refused.exit_code, 3) << words.front() << refused.out;
    EXPECT_THAT(refused.err, ::testing::AnyOf(HasSubstr("'i'"), HasSubstr("not those that the run was trained with")));
  }
}

class Fails : public GoesOn {};

/// Every process of a job that failed says so, whoever started it.
TEST_F(Fails, worker_zero_whose_job_never_came_together) {
  const Variables torchrun({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29883"}});
  const Outcome alone = rubato_command(train("run", {"--coupling", "allreduce", "--steps", "10", "--patience", "2"}));
  EXPECT_EQ(alone.exit_code, 3) << alone.err;
  EXPECT_THAT(alone.err, HasSubstr("1 of 2 workers are there"));
}

TEST_F(Fails, every_worker_of_a_job_that_diverged) {
  for (const char* inherited : {"", "worker"}) {  // a variable that means nothing here
    std::map<std::string, std::string> variables = {
        {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29884"}, {"RUBATO_INCARNATION", "7"}};
    if (*inherited != '\0') variables["RUBATO_ROLE"] = inherited;
    const Variables common(variables);
    fs::remove_all(run("run"));
    const Words words = train("run", {"--coupling", "async-easgd", "--steps", "500", "--lr", "1e18"});
    std::optional<Background> second;
    {
      const Variables rank(std::map<std::string, std::string>{{"RANK", "1"}});
      second.emplace(words, folder.path() / "second");
    }
    const Variables rank(std::map<std::string, std::string>{{"RANK", "0"}});
    const Outcome first = rubato_command(words);
    EXPECT_EQ(first.exit_code, 4) << first.err;
    EXPECT_EQ(second->wait(50s), 4) << content_of(folder.path() / "second");
    EXPECT_EQ(summary("run")["test_loss"], nullptr);
    EXPECT_EQ(summary("run")["test_accuracy"], nullptr);
  }
}

/// Before the first worker is let in.
TEST_F(Fails, every_worker_of_a_job_whose_disk_is_full_from_the_start) {
  const Variables common(
      std::map<std::string, std::string>{{"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29886"}});
  const Words words = train("run", {"--coupling", "allreduce", "--steps", "50"});
  std::optional<Background> second;
  {
    const Variables rank(std::map<std::string, std::string>{{"RANK", "1"}});
    second.emplace(words, folder.path() / "second");
  }
  const Variables rank(std::map<std::string, std::string>{{"RANK", "0"}});
  const Outcome first =
      rubato_command(words, {.file_size_limit = 20000});  // the coordinator's as well, less than the weights need
  EXPECT_EQ(first.exit_code, 3) << first.err;
  EXPECT_THAT(first.err, HasSubstr("cannot write"));
  EXPECT_EQ(second->wait(50s), 3) << content_of(folder.path() / "second");
}

TEST_F(Fails, a_worker_without_a_coordinator_ends_at_the_first_signal) {
  const Variables variables({{"RANK", "1"},
                             {"WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "127.0.0.1"},
                             {"MASTER_PORT", "29885"},
                             {"RUBATO_ROLE", "worker"},
                             {"RUBATO_KEYS", run("keys")}});
  ends_well({"keys", run("keys")});
  Background worker(train("run", {"--coupling", "async-easgd", "--steps", "10"}), folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return worker.awaits(SIGTERM); })) << content_of(folder.path() / "log");
  worker.end(SIGTERM);
  EXPECT_EQ(worker.wait(50s), 130) << "before --patience is over\n" << content_of(folder.path() / "log");
}

TEST_F(Fails, what_cannot_say_what_it_has_found) {
  ends_well(train("run", {"--steps", "2", "--quiet"}));
  for (const Words& words : {Words{"list", "models"}, Words{"eval", "--checkpoint", run("run")},
                             Words{"eval", "--checkpoint", run("run"), "--json"}, train("json", {"--steps", "2", "--json"})}) {
    std::string line = std::string(RUBATO_COMMAND);
    for (const std::string& word : words) line += " '" + word + "'";
    EXPECT_EQ(WEXITSTATUS(std::system((line + " > /dev/full 2> " + (folder.path() / "err").string()).c_str())), 3) << words[0];
    EXPECT_THAT(content_of(folder.path() / "err"), HasSubstr("standard output"));
  }
}

/// What a run's file says for its own schedule and coupling says nothing for others.
TEST_F(GoesOn, with_another_method_from_its_configuration) {
  ends_well(train("ddg", {"--steps", "4", "--schedule", "ddg", "--stages", "3", "--cuts", "1,2", "--coupling", "easgd",
                          "--replicas", "2", "--period", "2"}));
  for (const std::string name : {"ddg"}) ends_well({"eval", "--checkpoint", run(name)});
  const std::string config = run("ddg") + "/config.toml";
  ends_well({"train", "--config", config, "--schedule", "serial", "--coupling", "none", "--run-dir", run("serial"), "--quiet"});
  ends_well({"train", "--config", config, "--schedule", "hogwild", "--workers", "3", "--coupling", "downpour", "--run-dir",
             run("hogwild"), "--quiet"});
  ends_well({"eval", "--checkpoint", run("hogwild")});
  ends_well({"profile", "--config", config, "--coupling", "none", "--batch-size", "8"});
}

/// What is printed never lands in a file of the run.
TEST_F(Fails, nothing_when_its_standard_streams_are_closed) {
  std::string line = std::string(RUBATO_COMMAND);
  for (const std::string& word : train("run", {"--steps", "60"})) line += " '" + word + "'";
  EXPECT_EQ(WEXITSTATUS(std::system((line + " <&- >&- 2>&-").c_str())), 0);
  std::istringstream lines(content_of(fs::path(run("run")) / "metrics.jsonl"));
  int count = 0;
  for (std::string one; std::getline(lines, one); ++count) EXPECT_TRUE(nlohmann::json::accept(one)) << one;
  EXPECT_GT(count, 0);
  EXPECT_EQ(summary("run")["status"], "done");
}

TEST_F(Fails, a_path_that_its_configuration_could_not_name) {
  const Outcome refused = rubato_command(train("odd\xff", {"--steps", "2"}));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--run-dir is not UTF-8"));
  EXPECT_FALSE(fs::exists(run("odd\xff")));
  ends_well(train("Übung", {"--steps", "2"}));
}

/// With one sentence and the documented code, before or as soon as it is met.
TEST_F(Fails, images_that_no_model_can_take) {
  const auto rewrite = [&](const char* name, std::uint32_t height) {
    std::string bytes = content_of(data / name);
    bytes.replace(8, 4, big_endian(height));
    std::ofstream(data / name, std::ios::binary) << bytes.substr(0, 16 + static_cast<std::size_t>(height) * 28 * 50);
  };
  rewrite("t10k-images-idx3-ubyte", 14);
  const Outcome other = rubato_command(train("run", {"--steps", "2"}));
  EXPECT_EQ(other.exit_code, 3);
  EXPECT_THAT(other.err, HasSubstr("those for tests of shape [1, 14, 28]"));
}

/// Nothing can be normalised over one sample: said before the first step, not at the end of an epoch.
TEST_F(Fails, a_last_batch_of_one_sample_under_batch_norm) {
  for (const auto& [prefix, samples] :
       {std::pair{"train", 41}, std::pair{"t10k", 20}}) {  // so small that convolutions end at one pixel
    const std::string count = big_endian(static_cast<std::uint32_t>(samples));
    std::ofstream(data / (std::string(prefix) + "-images-idx3-ubyte"), std::ios::binary)
        << big_endian(0x803) + count + big_endian(4) + big_endian(4) + std::string(static_cast<std::size_t>(samples) * 16, 'x');
    std::ofstream(data / (std::string(prefix) + "-labels-idx1-ubyte"), std::ios::binary)
        << big_endian(0x801) + count + std::string(static_cast<std::size_t>(samples), '\1');
  }
  const auto resnet = [&](const Words& more) {
    Words words = {"train", "--data", "mnist", "--data-dir", data, "--model", "resnet8", "--run-dir", run("run"), "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  for (const Words& more :
       {Words{"--batch-size", "10", "--epochs", "1"}, Words{"--batch-size", "1", "--steps", "1"},
        Words{"--batch-size", "10", "--steps", "2", "--schedule", "gpipe", "--stages", "2", "--micro-batches", "6"}}) {
    const Outcome outcome = rubato_command(resnet(more));
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, HasSubstr("41 samples in batches of " + more[1]));
    EXPECT_THAT(outcome.err, HasSubstr("choose another --batch-size"));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
    EXPECT_FALSE(fs::exists(run("run")));
  }
  ends_well(resnet({"--batch-size", "10", "--steps", "4"}));  // the batch of one is not reached
}

/// Also where the model finds all that it needs among more.
TEST_F(Fails, weights_of_another_model) {
  const auto untrained = [&](const std::string& model, const Words& more) {
    Words words = {"train", "--data",  "mnist", "--data-dir", data,       "--model",
                   model,   "--steps", "0",     "--run-dir",  run(model), "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  ends_well(untrained("resnet20", {}));
  for (const Words& words : {Words{"eval", "--checkpoint", run("resnet20"), "--model", "resnet8"},
                             untrained("resnet8", {"--init-from", run("resnet20")})}) {
    const Outcome outcome = rubato_command(words);
    EXPECT_EQ(outcome.exit_code, 3) << words[0] << outcome.out;
    EXPECT_THAT(outcome.err, HasSubstr("the model resnet8 has none of that name"));
  }
}

TEST_F(Fails, not_when_a_reader_has_seen_enough) {
  std::string line = std::string(RUBATO_COMMAND);
  for (const std::string& word : train("run", {"--steps", "30", "--evaluate-every", "5"})) line += " '" + word + "'";
  const std::string bash = "bash -c \"set -o pipefail; " + line + " | head -1 > /dev/null\"";
  EXPECT_EQ(WEXITSTATUS(std::system(bash.c_str())), 0);
}

/// Whatever its value, the usual one as well.
TEST_F(Fails, flags_that_nothing_reads) {
  const auto simulate = [&](const Words& more) {
    Words words = train("run", more);
    words.front() = "simulate";
    return words;
  };
  const std::vector<std::pair<std::string, Words>> cases = {
      {"for --schedule hogwild or lpp", train("run", {"--workers", "8"})},
      {"for --schedule hogwild or lpp", train("run", {"--workers", "2"})},
      {"--micro-batches is for --schedule gpipe or 1f1b", train("run", {"--micro-batches", "8"})},
      {"--forward-threads is for --schedule pd-asgd", train("run", {"--forward-threads", "4"})},
      {"--stages is for", train("run", {"--stages", "4"})},
      {"--penalty is for --coupling admm", train("run", {"--penalty", "3"})},
      {"--penalty is for --coupling admm", train("run", {"--coupling", "downpour", "--penalty", "1"})},
      {"--dni-labels is for --schedule dni", train("run", {"--dni-labels"})},
      {"--publish is for --schedule", train("run", {"--schedule", "gpipe", "--stages", "2", "--publish", "block"})},
      {"a single replica has nobody", train("run", {"--period", "5"})},
      {"--sampling is for --coupling", train("run", {"--sampling", "shard"})},
      {"is for a job of several processes", train("run", {"--metrics", "127.0.0.1:9"})},
      {"must be at most 9223372036854775807", train("run", {"--seed", "18446744073709551615"})},
      {"is for --lr-schedule step", train("run", {"--lr-step-epochs", "2"})},
      {"is for --data text", train("run", {"--sequence-length", "64"})},
      {"no gradient of --schedule serial is stale", train("run", {"--staleness-scaling", "inverse"})},
      {"it is a folder", train("run", {"--config", data.string()})},
      {"both say what a pass costs", simulate({"--device-gflops", "10", "--block-costs", "1ms:2ms"})},
      {"--probe-bias with --no-compute", simulate({"--no-compute", "--probe-bias", "2"})},
      {"--target-accuracy with --no-compute", simulate({"--no-compute", "--target-accuracy", "50"})},
      {"unknown argument '--lr'", {"eval", "--checkpoint", run("run"), "--lr", "0.1"}},
      {"unknown argument '--workers'", {"eval", "--checkpoint", run("run"), "--workers", "2"}}};
  for (const auto& [sentence, words] : cases) {
    const Outcome refused = rubato_command(words);
    EXPECT_THAT(refused.exit_code, ::testing::AnyOf(2, 3)) << testing::PrintToString(words);
    EXPECT_THAT(refused.err, HasSubstr(sentence));
    EXPECT_FALSE(fs::exists(run("run"))) << sentence;
  }
}

}  // namespace app_resume_test
}  // namespace rubato::test
