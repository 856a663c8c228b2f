#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <sstream>

#include "app/background.h"
#include "app/command.h"
#include "rubato/core/random.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_run_folder_test {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class RunFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    data = folder.path() / "data";
    fs::create_directory(data);
    write_small_mnist(data);
  }
  Outcome train(const std::string& name, const std::vector<std::string>& more = {}, const Conditions& conditions = {}) {
    return rubato_command(small_run(data, folder.path() / name, more), conditions);
  }
  Outcome resume(const std::string& name) { return rubato_command({"train", "--resume", run(name)}); }
  Outcome eval(const std::string& name) { return rubato_command({"eval", "--checkpoint", run(name)}); }
  std::string run(const std::string& name) const { return folder.path() / name; }
  std::string summary(const std::string& name) const { return content_of(folder.path() / name / "summary.json"); }
  std::string digest(const std::string& name) const { return json_value(summary(name), "weights_digest"); }
  fs::path newest_checkpoint(const std::string& name) const {
    std::string latest = content_of(folder.path() / name / "checkpoint/latest");
    latest.pop_back();
    return folder.path() / name / "checkpoint" / latest;
  }

  TemporaryDirectory folder;
  fs::path data;
};

TEST_F(RunFolder, a_recorded_run_is_replayed_to_the_same_digest) {
  const std::vector<std::string> flags = {"--schedule", "hogwild", "--coupling", "lap",     "--replicas",
                                          "2",          "--steps", "12",         "--record"};
  EXPECT_EQ(train("recorded", flags).exit_code, 0);
  for (const char* where : {"threads", "simulator"}) {
    const Outcome again = rubato_command({"replay", run("recorded"), "--in", where});
    EXPECT_EQ(again.exit_code, 0) << again.err;
    EXPECT_THAT(again.out, HasSubstr("weights_digest " + digest("recorded")));
  }
  fs::resize_file(folder.path() / "recorded/recording.rec", 100);
  const Outcome cut = rubato_command({"replay", run("recorded")});
  EXPECT_EQ(cut.exit_code, 3);
  EXPECT_THAT(cut.err, HasSubstr("recording.rec is cut off in the record that begins at byte"));
  EXPECT_EQ(train("plain").exit_code, 0);
  EXPECT_THAT(rubato_command({"replay", run("plain")}).err, HasSubstr("record one with `rubato train --record`"));
}

TEST_F(RunFolder, holds_what_is_promised) {
  const Outcome outcome = train("a", {"--epochs", "2", "--trace", "--json"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, summary("a"));
  for (const char* key : {"schedule", "coupling", "runtime", "seed", "steps", "epochs", "seconds", "samples_per_second",
                          "train_loss", "test_accuracy", "seconds_to_target", "staleness", "peak_rss_bytes", "weights_digest"}) {
    EXPECT_THAT(summary("a"), HasSubstr(std::string("\"") + key + "\"")) << key;
  }
  EXPECT_GT(std::stod(json_value(summary("a"), "test_accuracy")), 20);
  for (const char* file : {"config.toml", "metrics.jsonl", "trace.json", "transcript.txt", "checkpoint/latest"}) {
    EXPECT_GT(fs::file_size(folder.path() / "a" / file), 0u) << file;
  }
  bool events = false;
  for (const auto& entry : fs::directory_iterator(run("a"))) {
    events = events || entry.path().filename().string().starts_with("events.out.tfevents");
  }
  EXPECT_TRUE(events);
  EXPECT_THAT(eval("a").out, HasSubstr("test accuracy"));
}

TEST_F(RunFolder, written_configuration_repeats_the_run) {
  train("a", {"--epochs", "1", "--schedule", "ddg", "--stages", "2", "--cuts", "auto", "--augment"});
  const Outcome again = rubato_command({"train", "--config", run("a") + "/config.toml", "--run-dir", run("b")});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(digest("a"), digest("b"));
  EXPECT_FALSE(digest("a").empty());
}

TEST_F(RunFolder, says_what_made_it_and_where) {
  const Outcome version = rubato_command({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, MatchesRegex("rubato [0-9.]+\nlibtorch [0-9.]+\nbuilt with [^\n]+\nhost [^\n]+\n"));
  train("a", {"--steps", "0"});
  const std::string config = content_of(folder.path() / "a" / "config.toml");
  std::istringstream lines(version.out);
  for (std::string line; std::getline(lines, line);) EXPECT_THAT(config, HasSubstr("# " + line + "\n"));
  EXPECT_THAT(version.out, HasSubstr("rubato " + json_value(summary("a"), "rubato") + "\n"));
  EXPECT_THAT(version.out, HasSubstr("libtorch " + json_value(summary("a"), "libtorch") + "\n"));
  EXPECT_THAT(version.out, HasSubstr(json_value(summary("a"), "compiler")));
  const std::string host = version.out.substr(version.out.find("\nhost ") + 6);
  EXPECT_THAT(summary("a"), HasSubstr("\"host\": \"" + host.substr(0, host.size() - 1) + "\""));
}

TEST_F(RunFolder, is_never_overwritten) {
  train("a", {"--steps", "0"});
  const Outcome second = train("a", {"--steps", "3"});
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr("already holds a run"));
  EXPECT_EQ(json_value(summary("a"), "steps"), "0");
}

TEST_F(RunFolder, the_same_bits_on_threads_and_in_virtual_time_and_in_every_limit) {
  train("serial", {"--steps", "20"});
  train("ddg1", {"--steps", "20", "--schedule", "ddg", "--stages", "1"});
  train("pd", {"--steps", "20", "--schedule", "pd-asgd", "--backward-threads", "1", "--max-in-flight", "1"});
  auto simulated = small_run(data, run("simulated"), {"--steps", "20"});
  simulated[0] = "simulate";
  EXPECT_EQ(rubato_command(simulated).exit_code, 0);
  EXPECT_EQ(digest("ddg1"), digest("serial"));
  EXPECT_EQ(digest("pd"), digest("serial"));
  EXPECT_EQ(digest("simulated"), digest("serial"));
  EXPECT_GT(std::stod(json_value(summary("simulated"), "virtual_seconds")), 0);
}

TEST_F(RunFolder, two_simulations_tell_the_same_story_and_another_seed_another) {
  const auto simulate = [&](const std::string& name, const std::string& seed) {
    auto arguments = small_run(data, run(name),
                               {"--steps", "30", "--schedule", "hogwild", "--workers", "3", "--trace", "--seed", seed,
                                "--inject-delay", "worker-0:1-9", "--platform", "uniform:3"});
    arguments[0] = "simulate";
    EXPECT_EQ(rubato_command(arguments).exit_code, 0);
    return content_of(folder.path() / name / "transcript.txt");
  };
  const std::string first = simulate("a", "1");
  EXPECT_GT(first.size(), 1000u);
  EXPECT_EQ(simulate("b", "1"), first);
  EXPECT_EQ(digest("a"), digest("b"));
  EXPECT_NE(simulate("c", "2"), first);
}

TEST_F(RunFolder, a_resumed_run_ends_as_if_it_had_never_stopped) {
  const std::vector<std::vector<std::string>> methods = {
      {"--schedule", "serial", "--dropout", "0.3"},
      {"--schedule", "ddg", "--stages", "3", "--cuts", "1,2", "--dropout", "0.3"},
      {"--schedule", "ddg", "--stages", "2", "--cuts", "1", "--optimizer", "adam", "--lr", "0.01"},
      {"--schedule", "features-replay", "--stages", "2", "--cuts", "2"},
      {"--schedule", "fdg", "--stages", "3", "--cuts", "1,2", "--gradient-shrinking", "0.5"},
      {"--schedule", "dni", "--stages", "2", "--cuts", "2", "--dni-labels"}};
  int number = 0;
  for (auto flags : methods) {
    const std::string whole = "whole" + std::to_string(number), parts = "parts" + std::to_string(number);
    ++number;
    flags.insert(flags.end(), {"--steps", "40"});
    EXPECT_EQ(train(whole, flags).exit_code, 0);
    auto slow = flags;  // slow enough to be caught on its way; delays change no bit
    slow.insert(slow.end(), {"--checkpoint-every", "9", "--inject-delay", "worker-0:5", "--inject-delay", "ddg-0:5",
                             "--inject-delay", "fr-0:5", "--inject-delay", "fdg-0:5", "--inject-delay", "dni-0:5"});
    const Outcome stopped = train(parts, slow, {.signal = SIGTERM, .signal_when = run(parts) + "/checkpoint/000002-step-9"});
    EXPECT_EQ(stopped.exit_code, 130) << stopped.err;
    EXPECT_LT(std::stoi(json_value(summary(parts), "steps")), 40);
    EXPECT_EQ(resume(parts).exit_code, 0);
    EXPECT_EQ(json_value(summary(parts), "steps"), "40");
    EXPECT_EQ(digest(parts), digest(whole)) << flags[1];
  }
}

TEST_F(RunFolder, resume_refuses_another_run_and_says_how_to_start_one) {
  train("a", {"--steps", "5"});
  const Outcome changed = rubato_command({"train", "--resume", run("a"), "--momentum", "0.5"});
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_THAT(changed.err, HasSubstr("--momentum differs"));
  EXPECT_EQ(rubato_command({"train", "--resume", run("nowhere")}).exit_code, 3);
}

TEST_F(RunFolder, a_damaged_checkpoint_is_passed_over_for_the_one_before) {
  train("a", {"--steps", "20", "--checkpoint-every", "10"});  // and one at the end of the epoch of 13 batches
  std::ofstream(newest_checkpoint("a") / "state.pt", std::ios::app) << "x";
  const Outcome resumed = rubato_command({"train", "--resume", run("a"), "--steps", "25"});
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("passed over a damaged checkpoint"));
  EXPECT_THAT(resumed.out, HasSubstr("continuing after batch 13"));
  std::ofstream(newest_checkpoint("a") / "state.pt", std::ios::app) << "x";
  const Outcome evaluated = eval("a");
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.err;
  EXPECT_THAT(evaluated.err, HasSubstr("passed over a damaged checkpoint"));
  EXPECT_EQ(rubato_command({"eval", "--checkpoint", newest_checkpoint("a")}).exit_code, 3);
  for (const auto& entry : fs::directory_iterator(folder.path() / "a/checkpoint")) {
    if (entry.is_directory()) fs::resize_file(entry.path() / "weights.pt", 10);
  }
  EXPECT_EQ(resume("a").exit_code, 3);
  EXPECT_EQ(eval("a").exit_code, 3);
}

TEST_F(RunFolder, a_finished_run_whose_checkpoints_are_gone_keeps_its_figures) {
  train("a", {"--steps", "20", "--checkpoint-every", "10"});
  const std::string before = summary("a");
  fs::remove_all(newest_checkpoint("a"));
  const Outcome older = resume("a");
  EXPECT_EQ(older.exit_code, 3) << older.err;
  EXPECT_THAT(older.err, HasSubstr("its newest checkpoint is of batch 13"));
  fs::remove_all(folder.path() / "a/checkpoint");
  const Outcome none = resume("a");
  EXPECT_EQ(none.exit_code, 3) << none.err;
  EXPECT_THAT(none.err, HasSubstr("came to batch 20, and there is no checkpoint"));
  EXPECT_EQ(summary("a"), before);
}

/// Whether it is removed or another takes its name: nothing is written where the run's folder was.
TEST_F(RunFolder, that_goes_away_ends_the_run) {
  for (const bool replaced : {false, true}) {
    const std::string name = replaced ? "replaced" : "removed";
    Background running(small_run(data, run(name), {"--steps", "200000", "--checkpoint-every", "50", "--evaluate-every", "-1"}),
                       folder.path() / (name + ".log"));
    ASSERT_TRUE(eventually([&] { return fs::exists(run(name) + "/checkpoint/latest"); }));
    fs::rename(run(name), run(name) + "-elsewhere");
    if (replaced) fs::create_directory(run(name));
    EXPECT_EQ(running.wait(std::chrono::seconds(60)), 3);
    EXPECT_THAT(content_of(folder.path() / (name + ".log")),
                HasSubstr(replaced ? "has been replaced by another" : "has been removed or renamed"));
    EXPECT_EQ(fs::exists(run(name)), replaced);
    EXPECT_TRUE(!replaced || fs::is_empty(run(name)));
  }
}

TEST_F(RunFolder, is_no_folder_of_other_things_and_its_names_are_free) {
  const auto refused = [&](const std::string& name, int code, const std::string& sentence) {
    const Outcome outcome = train(name, {"--steps", "2"});
    EXPECT_EQ(outcome.exit_code, code) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(sentence));
  };
  refused("data", 2, "is a folder with other things in it");
  fs::create_directories(run("a") + "/summary.json");
  refused("a", 3, "summary.json is a folder, where the run writes a file");
  fs::create_directories(run("b") + "/checkpoint/latest");
  refused("b", 3, "latest is a folder");
  EXPECT_FALSE(fs::exists(run("b") + "/config.toml"));
}

TEST_F(RunFolder, killed_at_any_moment_leaves_a_checkpoint_that_loads) {
  RandomStream random(11, RandomUse::test);
  for (int i = 0; i < 12; ++i) {
    const std::string name = "killed" + std::to_string(i);
    const Outcome killed = train(name, {"--steps", "100000", "--checkpoint-every", "1"},
                                 {.signal = SIGKILL,
                                  .signal_when = run(name) + "/checkpoint/latest",
                                  .signal_after = std::chrono::milliseconds(random.below(150))});
    EXPECT_EQ(killed.exit_code, 128 + SIGKILL);
    EXPECT_EQ(eval(name).exit_code, 0) << name;
  }
}

TEST_F(RunFolder, a_full_disk_ends_the_run_with_a_sentence_and_keeps_the_last_checkpoint) {
  train("a", {"--steps", "10"});
  const auto size = static_cast<long>(fs::file_size(newest_checkpoint("a") / "state.pt"));
  const Outcome full = rubato_command({"train", "--resume", run("a"), "--steps", "20"}, {.file_size_limit = size / 2});
  EXPECT_EQ(full.exit_code, 3) << full.err;
  EXPECT_THAT(full.err, HasSubstr("cannot write"));
  EXPECT_EQ(eval("a").exit_code, 0);
}

TEST_F(RunFolder, a_diverged_run_exits_with_4_and_keeps_the_last_good_checkpoint) {
  const Outcome diverged = train("a", {"--steps", "200", "--lr", "1e18", "--checkpoint-every", "1"});
  EXPECT_EQ(diverged.exit_code, 4) << diverged.err;
  EXPECT_THAT(diverged.err, HasSubstr("training diverged"));
  EXPECT_EQ(json_value(summary("a"), "status"), "diverged");
  EXPECT_EQ(eval("a").exit_code, 0);
}

TEST_F(RunFolder, is_evaluated_whatever_its_gradients_were) {
  const Outcome trained = train("a", {"--steps", "4", "--schedule", "hogwild", "--probe-bias", "2", "--staleness-scaling",
                                      "inverse", "--stale-weights", "live"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_EQ(eval("a").exit_code, 0) << eval("a").err;
}

TEST_F(RunFolder, of_a_delay_of_nobody_is_told) {
  const Outcome outcome = train("a", {"--steps", "2", "--inject-delay", "zzz-9:1", "--inject-delay", "worker-0:1"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("--inject-delay zzz-9:1 delays nobody: the roles of this run are worker-0"));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
}

TEST_F(RunFolder, a_second_signal_ends_at_once) {
  const Outcome outcome =
      train("a", {"--steps", "10", "--inject-delay", "worker-0:60000"},
            {.signal = SIGINT, .signal_when = run("a") + "/checkpoint/latest", .signals = 8});  // those of one moment are one
  EXPECT_EQ(outcome.exit_code, 130);
}

}  // namespace app_run_folder_test
}  // namespace rubato::test
