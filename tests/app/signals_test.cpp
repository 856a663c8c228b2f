// A job ends in every process with the same code, with a checkpoint, whoever of it is signalled, and when.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <ostream>

#include "app/background.h"
#include "app/command.h"
#include "launch/address.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_signals_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using Words = std::vector<std::string>;

const Words endless = {"--steps", "10000000", "--evaluate-every", "-1"};

class Signals : public ::testing::Test {
 protected:
  void SetUp() override {
    data = folder.path() / "data";
    std::filesystem::create_directory(data);
    write_small_mnist(data);
  }
  std::filesystem::path run() const { return folder.path() / "run"; }
  std::filesystem::path log_file(const std::string& name) const { return folder.path() / ("log." + name); }
  std::string log(const std::string& name = "launch") const { return content_of(log_file(name)); }
  Words train(Words flags, const Words& more = endless) const {
    flags.insert(flags.end(), more.begin(), more.end());
    return small_run(data, run(), flags);
  }
  std::unique_ptr<Background> launch(Words flags, const Words& command) const {
    Words words = {"launch", "-n", "2"};
    flags.push_back("--");
    words.insert(words.end(), flags.begin(), flags.end());
    words.insert(words.end(), command.begin(), command.end());
    return std::make_unique<Background>(words, log_file("launch"));
  }
  /// One of two workers, as torchrun, Slurm or Kubernetes start it.
  std::unique_ptr<Background> worker(int rank, const Words& command) const {
    const std::pair<const char*, std::string> place[] = {
        {"RANK", std::to_string(rank)}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", std::to_string(port)}};
    for (const auto& [name, value] : place) setenv(name, value.c_str(), 1);
    auto started = std::make_unique<Background>(command, log_file(std::to_string(rank)));
    for (const auto& [name, value] : place) unsetenv(name);
    return started;
  }
  bool all_have_passed(std::int64_t step) const {
    const nlohmann::json now = json_of(run() / "status.json");
    if (!now.is_object() || now["workers"].size() != 2) return false;
    return now["workers"][0].value("step", std::int64_t{0}) >= step && now["workers"][1].value("step", std::int64_t{0}) >= step;
  }
  std::string summary(const std::string& key) const { return json_value(content_of(run() / "summary.json"), key); }
  /// What has been done is saved, and can be gone on with.
  void ended_well() const {
    EXPECT_EQ(summary("status"), "interrupted");
    ASSERT_NE(summary("steps"), "");
    EXPECT_GE(std::stoll(summary("steps")), 20);
    EXPECT_THAT(content_of(run() / "checkpoint/latest"), HasSubstr("-step-" + summary("steps")));
  }

  TemporaryDirectory folder;
  std::filesystem::path data;
  const int port = free_port("127.0.0.1");
};

struct Case {
  const char* name;
  Words flags;
  bool to_first, to_second;
};

void PrintTo(const Case& is, std::ostream* out) {
  *out << is.name;
}

class ToWorkers : public Signals, public ::testing::WithParamInterface<Case> {};

TEST_P(ToWorkers, end_a_job_that_somebody_else_has_started) {
  const Words command = train(GetParam().flags);
  const auto first = worker(0, command), second = worker(1, command);
  ASSERT_TRUE(eventually([&] { return all_have_passed(20); })) << log("0") << log("1");
  if (GetParam().to_first) first->end(SIGTERM);
  if (GetParam().to_second) second->end(SIGTERM);
  EXPECT_EQ(first->wait(60s), 130) << log("0");
  EXPECT_EQ(second->wait(60s), 130) << log("1");
  ended_well();
}

TEST_P(ToWorkers, end_a_launched_job) {
  const auto launcher = launch({}, train(GetParam().flags));
  ASSERT_TRUE(eventually([&] { return all_have_passed(20); })) << log();
  for (const auto& [rank, wanted] : {std::pair{0, GetParam().to_first}, {1, GetParam().to_second}}) {
    const pid_t pid = process_of(run(), rank);
    ASSERT_GT(pid, 1);
    if (wanted) kill(pid, SIGTERM);
  }
  EXPECT_EQ(launcher->wait(60s), 130) << log();
  EXPECT_THAT(log(), Not(HasSubstr("no replica")));
  ended_well();
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, ToWorkers,
    ::testing::Values(Case{"sums_first", {"--coupling", "allreduce"}, true, false},
                      Case{"centre_second", {"--coupling", "async-easgd"}, false, true},
                      Case{"rounds_both", {"--coupling", "easgd"}, true, true},
                      Case{"averages_first", {"--coupling", "lap"}, true, false},
                      Case{"stages_second", {"--schedule", "ddg", "--stages", "2", "--cuts", "2"}, false, true}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(Signals, end_a_job_whose_other_worker_has_not_come) {
  const auto first = worker(0, train({"--coupling", "allreduce"}));
  ASSERT_TRUE(eventually([&] { return json_of(run() / "status.json").is_object() && first->awaits(SIGTERM); })) << log("0");
  first->end(SIGTERM);
  EXPECT_EQ(first->wait(30s), 130) << log("0");  // well before --patience
  EXPECT_THAT(log("0"), Not(HasSubstr("no replica")));
  EXPECT_EQ(summary("status"), "interrupted");
}

/// Ctrl-C of a group, scancel, systemd: the coordinator has the launcher's signal besides its own.
TEST_F(Signals, to_every_process_of_a_launched_job_are_one) {
  const auto launcher = launch({}, train({"--coupling", "allreduce"}));
  ASSERT_TRUE(eventually([&] { return all_have_passed(20); })) << log();
  const std::array<pid_t, 3> processes = {process_of(run(), -1), process_of(run(), 0), process_of(run(), 1)};
  for (const pid_t pid : processes) ASSERT_GT(pid, 1);
  launcher->end(SIGTERM);
  for (const pid_t pid : processes) kill(pid, SIGTERM);
  EXPECT_EQ(launcher->wait(60s), 130) << log();
  ended_well();
}

TEST_F(Signals, in_its_first_moments_leave_nothing_or_a_run_that_can_go_on) {
  for (const auto moment : {0ms, 60ms, 250ms, 600ms}) {
    SCOPED_TRACE(moment.count());
    std::filesystem::remove_all(run());
    const auto launcher = launch({}, train({"--coupling", "allreduce"}));
    ASSERT_TRUE(eventually([&] { return std::filesystem::exists(run() / "job.json"); })) << log();
    std::this_thread::sleep_for(moment);
    launcher->end(SIGTERM);
    EXPECT_EQ(launcher->wait(20s), 130) << log();
    if (!std::filesystem::exists(run())) continue;
    EXPECT_EQ(summary("status"), "interrupted") << log();
    const Outcome rest = rubato_command({"launch", "-n", "2", "--", "train", "--resume", run().string(), "--steps", "20"});
    EXPECT_EQ(rest.exit_code, 0) << rest.err;
  }
}

/// The processes of a job that fails end with one code, and soon.
TEST_F(Signals, of_a_taken_port_all_processes_hear_the_code) {
  const int taken = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  ASSERT_EQ(bind(taken, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(taken, 1), 0);
  const std::string number = std::to_string(port);
  const auto fails = [&](const Words& flags, const Words& more) {
    const auto launcher = launch(flags, train({"--coupling", "allreduce"}, more));
    EXPECT_EQ(launcher->wait(20s), 2) << log();
    for (const char* sentence : {"worker-0 ended (exit 2)", "worker-1 ended (exit 2)"}) EXPECT_THAT(log(), HasSubstr(sentence));
    EXPECT_FALSE(std::filesystem::exists(run()));
    std::filesystem::remove(log_file("launch"));
  };
  fails({"--port", number}, {"--steps", "20"});
  fails({}, {"--steps", "20", "--metrics", "127.0.0.1:" + number});
  close(taken);
}

TEST_F(Signals, of_other_options_all_processes_hear_the_code) {
  const auto first = worker(0, train({"--coupling", "allreduce"}));
  const auto second = worker(1, train({"--coupling", "allreduce", "--seed", "7"}));
  EXPECT_EQ(second->wait(30s), 2) << log("1");
  EXPECT_EQ(first->wait(30s), 2) << log("0");
  EXPECT_THAT(log("0"), HasSubstr("worker 1 has another configuration"));
}

/// It would keep the port, and answer the next job there.
TEST_F(Signals, and_failures_leave_no_coordinator_behind) {
  const auto first = worker(0, train({"--coupling", "allreduce", "--patience", "1"}));
  EXPECT_EQ(first->wait(30s), 3) << log("0");
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  EXPECT_NE(connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << "somebody still listens";
  close(descriptor);
}

}  // namespace app_signals_test
}  // namespace rubato::test
