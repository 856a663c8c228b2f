// Jobs beyond loopback: encrypted connections, and workers on hosts that a command reaches.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <fstream>
#include <map>

#include "app/background.h"
#include "app/command.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_hosts_test {

using Words = std::vector<std::string>;

/// An address of this machine that is not loopback; empty: there is none.
std::string outer_address() {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return "";
  std::string found;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN] = {};
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr, text, sizeof text);
    found = text;
  }
  freeifaddrs(all);
  return found;
}

class Hosts : public ::testing::Test {
 protected:
  void SetUp() override {
    address = outer_address();
    if (address.empty()) GTEST_SKIP() << "this machine has no address but loopback";
    data = folder.path() / "data";
    std::filesystem::create_directory(data);
    write_small_mnist(data);
  }
  Words train(const std::string& run, const Words& more) const {
    Words words = {"--steps", "12"};
    words.insert(words.end(), more.begin(), more.end());
    return small_run(data, folder.path() / run, words);
  }
  Outcome launch(int workers, Words options, const Words& command) const {
    Words words = {"launch", "-n", std::to_string(workers), "--listen", address};
    words.insert(words.end(), options.begin(), options.end());
    words.emplace_back("--");
    words.insert(words.end(), command.begin(), command.end());
    return rubato_command(words);
  }
  std::string digest(const std::string& run) const {
    return json_value(content_of(folder.path() / run / "summary.json"), "weights_digest");
  }
  /// Stands for ssh: notes the host, and runs the line here, with a shell as a login would.
  std::filesystem::path reach() const {
    const auto file = folder.path() / "reach";
    std::ofstream(file) << "#!/bin/sh\necho \"$1\" >> '" << (folder.path() / "reached").string() << "'\nexec sh -c \"$2\"\n";
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
    return file;
  }

  std::string address;
  TemporaryDirectory folder;
  std::filesystem::path data;
};

TEST_F(Hosts, beyond_loopback_connections_are_encrypted_and_the_bits_the_same) {
  const Words flags = {"--schedule", "ddg", "--stages", "2", "--cuts", "2"};
  ASSERT_EQ(rubato_command(train("threads", flags)).exit_code, 0);
  Words patient = flags;
  patient.insert(patient.end(), {"--silence", "600"});
  const Outcome processes = launch(2, {}, train("processes", patient));
  ASSERT_EQ(processes.exit_code, 0) << processes.err << processes.out;
  EXPECT_EQ(digest("processes"), digest("threads"));
  EXPECT_EQ(std::filesystem::status(folder.path() / "processes/keys").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(Hosts, workers_on_other_hosts_get_the_keys_and_train) {
  std::ofstream(folder.path() / "hosts") << "alpha slots=1\nbeta slots=2\n";
  const Words hosts = {"--hosts", (folder.path() / "hosts").string(), "--ssh", reach().string()};
  const Outcome job = launch(3, hosts, train("run", {"--coupling", "async-easgd"}));
  ASSERT_EQ(job.exit_code, 0) << job.err << job.out;
  EXPECT_EQ(json_value(content_of(folder.path() / "run/summary.json"), "steps"), "12");
  const std::string reached = content_of(folder.path() / "reached");
  EXPECT_EQ(std::count(reached.begin(), reached.end(), '\n'), 3);
  EXPECT_THAT(reached, ::testing::HasSubstr("alpha"));
  EXPECT_THAT(reached, ::testing::HasSubstr("beta"));
  for (const auto& worker : json_of(folder.path() / "run/status.json")["workers"]) EXPECT_EQ(worker["state"], "finished");
}

/// Processes that something else than `rubato launch` starts, one of them with the keys of another job.
TEST_F(Hosts, a_worker_with_other_keys_is_kept_out) {
  for (const char* keys : {"right", "wrong"}) ASSERT_EQ(rubato_command({"keys", (folder.path() / keys).string()}).exit_code, 0);
  const Words command = train("run", {"--coupling", "async-easgd", "--replicas", "2", "--patience", "5"});
  const auto start = [&](const char* name, const char* role, const char* rank, const char* keys) {
    const std::map<std::string, std::string> variables = {{"RUBATO_STARTED_BY", "launch"},
                                                          {"RUBATO_ROLE", role},
                                                          {"RANK", rank},
                                                          {"WORLD_SIZE", "2"},
                                                          {"MASTER_ADDR", address},
                                                          {"MASTER_PORT", "29871"},
                                                          {"RUBATO_KEYS", (folder.path() / keys).string()}};
    for (const auto& [variable, value] : variables) setenv(variable.c_str(), value.c_str(), 1);
    auto process = std::make_unique<Background>(command, folder.path() / name);
    for (const auto& [variable, value] : variables) unsetenv(variable.c_str());
    return process;
  };
  const auto coordinator = start("coordinator", "coordinator", "0", "right"),
             stranger = start("stranger", "worker", "1", "wrong"), worker = start("worker", "worker", "0", "right");
  EXPECT_EQ(stranger->wait(std::chrono::seconds(60)), 3);
  EXPECT_THAT(content_of(folder.path() / "stranger"), ::testing::HasSubstr("the same key file"));
  EXPECT_EQ(worker->wait(std::chrono::seconds(90)), 0) << content_of(folder.path() / "worker");
  EXPECT_EQ(coordinator->wait(std::chrono::seconds(90)), 0) << content_of(folder.path() / "coordinator");
  const nlohmann::json status = json_of(folder.path() / "run/status.json");
  EXPECT_EQ(status["workers"][0]["state"], "finished");
  EXPECT_EQ(status["workers"][1]["state"], "missing");
  EXPECT_GE(status.value("refused", 0), 1);
}

}  // namespace app_hosts_test
}  // namespace rubato::test
