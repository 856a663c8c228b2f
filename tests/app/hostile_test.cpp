#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "app/command.h"
#include "app/raw_attacks.h"
#include "app/zmq_attacks.h"
#include "rubato/core/error.h"
#include "rubato/monitor/status.h"
#include "support/temporary_directory.h"

namespace rubato::test {
namespace app_hostile_test {

namespace fs = std::filesystem;

constexpr int wanted_connections = 1000;
constexpr int first_steps = 6000, most_attempts = 5;

/// Connections to the coordinator of a running job, from several threads, from the moment it can be reached until `end`.
class Attack {
 public:
  explicit Attack(fs::path run) : run_(std::move(run)), reading_([this] { begin(); }) {}
  /// How many were made.
  int end() {
    ended_ = true;
    reading_.join();
    for (std::thread& thread : threads_) thread.join();
    return made_;
  }

 private:
  void begin() {
    while (!ended_ && !can_be_reached()) pause(5);
    if (ended_) return;
    threads_.emplace_back([this] { intruders(); });
    threads_.emplace_back([this] { speakers(); });
    threads_.emplace_back([this] { strangers(); });
    threads_.emplace_back([this] { slow_strangers(); });
  }

  bool can_be_reached() {
    endpoint_ = json_value(content_of(run_ / "job.json"), "endpoint");
    if (endpoint_.empty()) return false;
    try {
      credentials_ = read_credentials(run_ / "keys");
    } catch (const DataError&) {
      return false;
    }
    return RawConnection(port()).connected();
  }

  int port() const { return std::stoi(endpoint_.substr(endpoint_.rfind(':') + 1)); }
  static void pause(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

  /// A coordinator that cannot be reached has ended or is about to.
  void count(bool connected) {
    if (connected) {
      ++made_;
    } else {
      pause(5);
    }
  }

  void intruders() {
    zmq::context_t context;
    for (int number = 0; !ended_; ++number) count(intrude(context, endpoint_, credentials_, number));
  }

  void speakers() {
    zmq::context_t context;
    for (int number = 0; !ended_; ++number) count(speak(context, endpoint_, credentials_, hostile_speech(number)));
  }

  void strangers() {
    for (int number = 0; !ended_; ++number) {
      const RawConnection connection(port());
      count(connection.connected());
      for (const std::string& words : raw_speech(number, credentials_.token)) {
        connection.say(words);
        connection.listen();
      }
    }
  }

  /// Many at once, each of which says a byte every now and then; half of them nothing at all.
  void slow_strangers() {
    const std::string words = zmtp_greeting("PLAIN");
    while (!ended_) {
      std::vector<RawConnection> all;
      for (int i = 0; i < 30; ++i) {
        all.emplace_back(port());
        count(all.back().connected());
      }
      for (std::size_t said = 0; said < 30 && !ended_; ++said) {
        for (std::size_t i = 0; i < all.size(); i += 2) all[i].say(words.substr(said, 1));
        pause(100);
      }
    }
  }

  const fs::path run_;
  std::string endpoint_;
  Credentials credentials_;
  std::atomic<bool> ended_ = false;
  std::atomic<int> made_ = 0;
  std::vector<std::thread> threads_;
  std::thread reading_;
};

class Hostile : public ::testing::Test {
 protected:
  void SetUp() override {
    data = folder.path() / "data";
    fs::create_directory(data);
    write_small_mnist(data);
  }

  fs::path run(const std::string& name) const { return folder.path() / name; }
  std::vector<std::string> flags(const std::string& name, int steps) const {
    return small_run(data, run(name),
                     {"--schedule", "ddg", "--stages", "2", "--cuts", "1", "--steps", std::to_string(steps), "--evaluate-every",
                      "-1", "--seed", "3"});
  }
  /// The same training as `flags` says, in processes; returns how many connections were made meanwhile.
  int attacked(const std::string& name, int steps, Outcome& outcome) const {
    std::vector<std::string> arguments = {"launch", "-n", "2", "--"};
    for (const std::string& flag : flags(name, steps)) arguments.push_back(flag);
    Attack attack(run(name));
    outcome = rubato_command(arguments);
    return attack.end();
  }
  std::string digest(const std::string& name) const {
    return json_value(content_of(run(name) / "summary.json"), "weights_digest");
  }

  TemporaryDirectory folder;
  fs::path data;
};

TEST_F(Hostile, a_thousand_connections_change_nothing) {
  int made = 0, steps = first_steps / 2, attempt = 0;
  std::string name;
  // How many fit into a run depends on the machine.
  while (made < wanted_connections && attempt++ < most_attempts) {
    steps *= 2;
    name = "attacked" + std::to_string(attempt);
    Outcome outcome;
    made = attacked(name, steps, outcome);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  ASSERT_GE(made, wanted_connections);
  const Outcome alone = rubato_command(flags("alone", steps));
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_EQ(digest(name), digest("alone"));
  EXPECT_FALSE(digest("alone").empty());

  const JobStatus status = status_from_json(content_of(run(name) / "status.json"), "of the attacked run");
  EXPECT_EQ(status.state, "done");
  EXPECT_EQ(status.deaths, 0);
  EXPECT_EQ(status.joins, 0);
  EXPECT_GT(status.refused, 0);
  const std::vector<std::string> expected = {
      "not the token of this job",
      "no ZeroMQ handshake",
      "handshake not finished",
      "the head is not one of a frame",
      "another configuration: all processes of a job need the same options and the same build",
      "the part of a tensor is missing"};
  for (const std::string& reason : expected) EXPECT_TRUE(status.refused_reasons.contains(reason)) << reason;
  RecordProperty("connections", made);
  RecordProperty("refused", static_cast<int>(status.refused));
}

}  // namespace app_hostile_test
}  // namespace rubato::test
