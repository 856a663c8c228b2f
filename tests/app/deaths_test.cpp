// Processes of a job that die, are stopped, come back.
#include <cstdint>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/background.h"
#include "app/command.h"
#include "rubato/core/random.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_deaths_test {

using namespace std::chrono_literals;
using Words = std::vector<std::string>;

class Deaths : public ::testing::Test {
 protected:
  void SetUp() override {
    data = folder.path() / "data";
    std::filesystem::create_directory(data);
    write_small_mnist(data);
  }
  /// Nothing that a test started stays behind, whatever happened in it.
  void TearDown() override {
    for (int rank = -1; rank < 3; ++rank) {
      if (const pid_t pid = process_of(run(), rank); pid > 0) kill(pid, SIGKILL);
    }
  }
  std::filesystem::path run() const { return folder.path() / "run"; }
  Words train(const Words& more) const { return small_run(data, run(), more); }
  Words launch(int workers, const Words& more) const {
    Words words = {"launch", "-n", std::to_string(workers), "--restarts", "1000", "--"};
    const Words command = train(more);
    words.insert(words.end(), command.begin(), command.end());
    return words;
  }
  std::string log() const { return content_of(folder.path() / "log"); }
  nlohmann::json status() const { return json_of(run() / "status.json"); }
  nlohmann::json worker(int rank) const {
    const nlohmann::json now = status();
    return now.is_object() && now["workers"].size() > static_cast<std::size_t>(rank)
               ? now["workers"][static_cast<std::size_t>(rank)]
               : nlohmann::json::object();
  }
  bool all_have_passed(int workers, std::int64_t step) const {
    for (int rank = 0; rank < workers; ++rank) {
      if (worker(rank).value("step", std::int64_t{0}) < step) return false;
    }
    return true;
  }
  /// SIGKILL for the process of `rank`, which runs.
  void end_of(int rank) const {
    const pid_t pid = process_of(run(), rank);
    ASSERT_GT(pid, 0) << "process " << rank << " has ended by itself\n" << log();
    kill(pid, SIGKILL);
  }
  std::string summary(const std::string& key) const { return json_value(content_of(run() / "summary.json"), key); }

  void survivors_go_on(const char* coupling) {
    const Words flags = {"--coupling", coupling, "--steps", "10000000", "--evaluate-every", "-1", "--checkpoint-every", "500"};
    Background launcher(launch(3, flags), folder.path() / "log");
    ASSERT_TRUE(eventually([&] { return all_have_passed(3, 20); })) << log();
    end_of(1);
    ASSERT_TRUE(eventually([&] { return worker(1).value("incarnation", 0) == 1 && worker(1).value("samples", 0) > 0; })) << log();
    launcher.end(SIGTERM);
    EXPECT_EQ(launcher.wait(60s), 130) << log();
    EXPECT_EQ(summary("status"), "interrupted");
    EXPECT_EQ(status()["deaths"], 1);
    const std::string end = std::to_string(std::stoll(summary("steps")) + 600);
    const Outcome rest =
        rubato_command({"launch", "-n", "3", "--", "train", "--resume", run().string(), "--steps", end, "--quiet"});
    EXPECT_EQ(rest.exit_code, 0) << rest.err;
    EXPECT_EQ(summary("steps"), end);
    for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(worker(rank)["state"], "finished");
  }

  TemporaryDirectory folder;
  std::filesystem::path data;
};

/// The short form of the soak: ten kills of workers, coordinator and launcher.
TEST_F(Deaths, ten_kills_of_anybody_and_the_job_ends_well) {
  const Words flags = {"--coupling", "async-easgd",        "--steps", "10000000", "--evaluate-every",
                       "-1",         "--checkpoint-every", "2000"};
  auto launcher = std::make_unique<Background>(launch(3, flags), folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return all_have_passed(3, 1); })) << log();
  RandomStream random(7, RandomUse::test);
  double longest = 0;
  int kills = 0;
  const Words attach = {"launch", "--restarts", "1000", "--attach", run().string()};
  const auto kill_one = [&](int rank) {
    if (rank == -2) {
      launcher->end(SIGKILL);
      launcher = std::make_unique<Background>(attach, folder.path() / "log");
    } else if (const pid_t pid = process_of(run(), rank); pid > 0) {
      kill(pid, SIGKILL);
    } else {
      return;
    }
    ++kills;
  };
  for (const int rank : {-1, 0, -2, 2, 1, -1, -2, 0, 1, 2}) {  // everybody at least once
    std::this_thread::sleep_for(std::chrono::milliseconds(300 + random.below(700)));
    for (int other = 0; other < 3; ++other) longest = std::max(longest, worker(other).value("longest_wait_seconds", 0.0));
    kill_one(rank);
  }
  EXPECT_GE(kills, 8);
  std::int64_t furthest = 0;
  for (int rank = 0; rank < 3; ++rank) furthest = std::max(furthest, worker(rank).value("step", std::int64_t{0}));
  ASSERT_TRUE(eventually([&] { return all_have_passed(3, furthest + 2000); }, 100s)) << "it hangs\n" << log();
  launcher->end(SIGTERM);
  EXPECT_EQ(launcher->wait(50s), 130) << log();
  EXPECT_EQ(summary("status"), "interrupted");
  EXPECT_GT(std::stod(summary("test_accuracy")), 60);
  EXPECT_LT(longest, 30) << "nobody waits for the dead until --patience is over; how long exactly is measured by the soak";
  EXPECT_GE(status()["deaths"], 3) << "later coordinators know what earlier ones have counted";
}

TEST_F(Deaths, stages_go_back_to_the_checkpoint_and_reach_the_same_weights) {
  const auto flags = [](const std::string& steps) {
    return Words{"--schedule",       "ddg", "--stages",           "2",  "--cuts", "2", "--steps", steps,
                 "--evaluate-every", "-1",  "--checkpoint-every", "500"};
  };
  {
    Background launcher(launch(2, flags("10000000")), folder.path() / "log");
    ASSERT_TRUE(eventually([&] { return worker(0).value("step", 0) > 600; })) << log();
    end_of(1);
    ASSERT_TRUE(eventually([&] { return worker(1).value("incarnation", 0) == 1 && worker(1).value("samples", 0) > 0; })) << log();
    launcher.end(SIGTERM);
    EXPECT_EQ(launcher.wait(50s), 130) << log();
  }
  const std::string after_death = summary("weights_digest"), steps = summary("steps");
  EXPECT_THAT(log(), ::testing::HasSubstr("a worker is gone"));
  EXPECT_EQ(status()["step"], std::stoll(steps)) << "of the job, of the stage that takes the batches and of the other";
  for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(worker(rank)["step"], std::stoll(steps)) << rank;
  std::filesystem::rename(run(), folder.path() / "before");
  EXPECT_EQ(rubato_command(train(flags(steps))).exit_code, 0);
  EXPECT_EQ(summary("weights_digest"), after_death);
}

/// Sums, and rounds with a centre, go on without one who dies; who comes back takes part from the next segment on.
TEST_F(Deaths, survivors_of_a_sum_go_on_without_the_dead_and_it_joins_again) {
  survivors_go_on("allreduce");
}

TEST_F(Deaths, survivors_of_a_round_go_on_without_the_dead_and_it_joins_again) {
  survivors_go_on("easgd");
}

/// Later segments begin without it.
TEST_F(Deaths, who_is_not_started_again_is_done_without) {
  for (const std::string coupling : {"easgd", "allreduce"}) {
    std::filesystem::remove_all(run());
    Words words = {"launch", "-n", "3", "--restarts", "0", "--"};
    const Words command =
        train({"--coupling", coupling, "--steps", "10000000", "--evaluate-every", "-1", "--checkpoint-every", "50"});
    words.insert(words.end(), command.begin(), command.end());
    Background launcher(words, folder.path() / "log");
    ASSERT_TRUE(eventually([&] { return all_have_passed(3, 20); })) << log();
    end_of(1);
    const std::int64_t at_death = worker(0).value("step", std::int64_t{0});
    EXPECT_TRUE(eventually([&] { return worker(1).value("state", "") == "dead"; }, 8s)) << "the launcher has seen its end\n"
                                                                                        << log();
    EXPECT_TRUE(eventually([&] { return worker(0).value("step", std::int64_t{0}) > at_death + 200; })) << coupling << "\n"
                                                                                                       << log();
    launcher.end(SIGTERM);
    EXPECT_EQ(launcher.wait(50s), 130) << coupling << "\n" << log();
    EXPECT_EQ(summary("status"), "interrupted");
  }
}

/// Segments follow each other quickly, so that the signal meets every moment of one: between the order to begin and the first
/// batch as well.
TEST_F(Deaths, a_signal_at_any_moment_ends_the_job) {
  RandomStream random(11, RandomUse::test);
  for (const std::string coupling : {"easgd", "allreduce", "async-easgd", "lap"}) {
    std::filesystem::remove_all(run());
    Background launcher(
        launch(2, {"--coupling", coupling, "--steps", "10000000", "--evaluate-every", "-1", "--checkpoint-every", "5"}),
        folder.path() / "log");
    ASSERT_TRUE(eventually([&] { return all_have_passed(2, 5); })) << log();
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(60'000)));
    launcher.end(SIGTERM);
    ASSERT_EQ(launcher.wait(50s), 130) << coupling << "\n" << log();
    EXPECT_EQ(summary("status"), "interrupted");
  }
}

/// Replicas that average without a centre: who comes back begins with the weights of another.
TEST_F(Deaths, averagers_without_a_centre_lose_one_and_their_coordinator) {
  Background launcher(
      launch(3, {"--coupling", "lap", "--steps", "10000000", "--evaluate-every", "-1", "--checkpoint-every", "500"}),
      folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return all_have_passed(3, 20); })) << log();
  end_of(1);
  ASSERT_TRUE(eventually([&] { return worker(1).value("incarnation", 0) == 1 && worker(1).value("samples", 0) > 0; })) << log();
  const std::int64_t before = worker(0).value("step", std::int64_t{0});
  end_of(-1);
  ASSERT_TRUE(eventually([&] {
    return status().is_object() && status()["coordinator"]["incarnation"] == 1 && all_have_passed(3, before + 100);
  })) << log();
  launcher.end(SIGTERM);
  EXPECT_EQ(launcher.wait(50s), 130) << log();
  EXPECT_EQ(summary("status"), "interrupted");
}

TEST_F(Deaths, a_signal_ends_a_job_whose_workers_have_not_come) {
  Words words = train({"--coupling", "allreduce", "--replicas", "2"});
  for (const auto& [name, value] :
       {std::pair{"RUBATO_ROLE", "coordinator"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29872"}}) {
    setenv(name, value, 1);
  }
  Background coordinator(words, folder.path() / "log");
  for (const char* name : {"RUBATO_ROLE", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) unsetenv(name);
  ASSERT_TRUE(eventually([&] { return status().is_object(); })) << log();
  coordinator.end(SIGTERM);
  EXPECT_EQ(coordinator.wait(30s), 130) << log();  // well before --patience
}

TEST_F(Deaths, the_policy_stop_ends_the_job_with_a_sentence) {
  Background launcher(
      launch(2, {"--coupling", "allreduce", "--steps", "10000000", "--evaluate-every", "-1", "--when-worker-dies", "stop"}),
      folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return all_have_passed(2, 20); })) << log();
  end_of(1);
  EXPECT_EQ(launcher.wait(100s), 3) << log();
  EXPECT_THAT(log(), ::testing::HasSubstr("worker 1 has died"));
}

TEST_F(Deaths, a_stopped_worker_holds_nobody_up_and_comes_back) {
  Background launcher(launch(2, {"--coupling", "async-easgd", "--steps", "10000000", "--evaluate-every", "-1"}),
                      folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return all_have_passed(2, 20); })) << log();
  const auto step_of = [&](int rank) { return worker(rank).value("step", std::int64_t{0}); };
  const pid_t stopped = process_of(run(), 1);
  ASSERT_GT(stopped, 0);
  kill(stopped, SIGSTOP);
  ASSERT_TRUE(eventually([&] { return worker(1).value("state", "") == "silent"; })) << log();
  const std::int64_t where = step_of(1);
  ASSERT_TRUE(eventually([&] { return step_of(0) >= where + 5000; })) << "worker 0 waits for the stopped one";
  EXPECT_EQ(step_of(1), where);
  EXPECT_GT(worker(1).value("steps_behind", 0), 0) << "how stale it will come back";
  kill(stopped, SIGCONT);
  ASSERT_TRUE(eventually([&] { return worker(1).value("state", "") == "alive" && step_of(1) > where; })) << log();
  launcher.end(SIGTERM);
  EXPECT_EQ(launcher.wait(50s), 130) << log();
  EXPECT_EQ(status()["workers"][1]["state"], "finished");
  EXPECT_EQ(status()["workers"][1]["incarnation"], 0);
}

/// User and system time of a process, in seconds.
double processor_time(pid_t pid) {
  std::istringstream line(content_of("/proc/" + std::to_string(pid) + "/stat"));
  line.ignore(1000, ')');
  std::string skipped;
  for (int field = 3; field < 14; ++field) line >> skipped;
  double user = 0, system = 0;
  line >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// Threads that wake each other up would have nothing to do, and a processor to do it on.
TEST_F(Deaths, who_waits_takes_no_processor_and_a_dead_launcher_takes_no_stopped_worker_with_it) {
  auto launcher = std::make_unique<Background>(
      launch(2, {"--coupling", "async-easgd", "--steps", "10000000", "--evaluate-every", "-1"}), folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return all_have_passed(2, 20); })) << log();
  const pid_t coordinator = process_of(run(), -1), workers[] = {process_of(run(), 0), process_of(run(), 1)};
  ASSERT_GT(coordinator, 0);
  for (const pid_t pid : workers) kill(pid, SIGSTOP);
  ASSERT_TRUE(eventually([&] { return worker(0).value("state", "") == "silent" && worker(1).value("state", "") == "silent"; }));
  const double before = processor_time(coordinator);
  std::this_thread::sleep_for(1s);
  EXPECT_LT(processor_time(coordinator) - before, 0.2) << "seconds of processor time in a second without anything to do";
  launcher->end(SIGKILL);  // then Linux hangs up on process groups of its session that have a stopped member and no parent in it
  launcher = std::make_unique<Background>(Words{"launch", "--attach", run().string()}, folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return log().find("still runs") != std::string::npos; }));
  for (const pid_t pid : workers) kill(pid, SIGCONT);
  const std::int64_t where = worker(0).value("step", std::int64_t{0}) + 100;
  EXPECT_TRUE(eventually([&] { return all_have_passed(2, where); })) << log();
  for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(worker(rank).value("incarnation", -1), 0) << log();
  launcher->end(SIGTERM);
  EXPECT_EQ(launcher->wait(50s), 130) << log();
}

TEST_F(Deaths, a_job_file_that_cannot_be_read_holds_nobody_up) {
  Background launcher(launch(2, {"--coupling", "async-easgd", "--steps", "10000000", "--evaluate-every", "-1"}),
                      folder.path() / "log");
  ASSERT_TRUE(eventually([&] { return all_have_passed(2, 20); })) << log();
  const auto file = run() / "job.json", aside = folder.path() / "job.json";
  std::filesystem::rename(file, aside);
  const auto goes_on = [&] {
    std::this_thread::sleep_for(1100ms);  // the coordinator looks every second
    const std::int64_t where = worker(0).value("step", std::int64_t{0}) + 100;
    EXPECT_TRUE(eventually([&] { return all_have_passed(2, where); })) << log();
    for (int rank = 0; rank < 2; ++rank) EXPECT_EQ(worker(rank).value("state", ""), "alive");
  };
  for (const char* content : {"[7]", R"({"processes": [{"rank": "a", "exited": {}}]})"}) {
    SCOPED_TRACE(content);
    std::ofstream(file) << content;
    goes_on();
  }
  std::filesystem::remove(file);
  ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);  // whoever reads it waits as if for a disk
  goes_on();
  std::ofstream(file) << "the disk is back";
  std::filesystem::rename(aside, file);
  launcher.end(SIGTERM);
  EXPECT_EQ(launcher.wait(60s), 130) << log();
}

TEST_F(Deaths, a_signal_ends_the_job_with_a_checkpoint_and_another_number_of_workers_goes_on) {
  const Words flags = {"--coupling", "async-easgd", "--steps", "10000000", "--evaluate-every", "-1"};
  {
    Background launcher(launch(2, flags), folder.path() / "log");
    ASSERT_TRUE(eventually([&] { return all_have_passed(2, 50); })) << log();
    launcher.end(SIGTERM);
    EXPECT_EQ(launcher.wait(60s), 130) << log();
  }
  EXPECT_EQ(summary("status"), "interrupted");
  const std::int64_t step = std::stoll(summary("steps"));
  EXPECT_GE(step, 50);
  const Outcome more = rubato_command(
      {"launch", "-n", "3", "--", "train", "--resume", run().string(), "--steps", std::to_string(step + 100), "--quiet"});
  EXPECT_EQ(more.exit_code, 0) << more.err;
  EXPECT_EQ(summary("replicas"), "3");
  EXPECT_EQ(summary("steps"), std::to_string(step + 100));
}

}  // namespace app_deaths_test
}  // namespace rubato::test
