// Two transports of one process that talk over loopback.
#include "rubato/transport/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <set>
#include <thread>

#include "rubato/core/error.h"

namespace rubato {
namespace transport_transport_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr auto long_enough = 60s;  // only a failure waits for so long

/// Writes down what a transport tells.
class Listener final : public TransportListener {
 public:
  void arrived(int peer, Frame frame) override {
    if (frame.kind == FrameKind::beat) return;
    note([&] { frames.emplace_back(peer, std::move(frame)); });
  }
  std::string admit(const Greeting& greeting) override {
    std::string answer;
    note([&] {
      hellos.push_back(greeting);
      answer = turn_away;
    });
    return answer;
  }
  void welcomed(const Greeting& coordinator) override {
    note([&] { coordinators.push_back(coordinator); });
  }
  void turned_away(const std::string& reason) override {
    note([&] { refused = reason; });
  }
  void silent(int peer, bool is_silent) override {
    note([&] {
      if (is_silent) silent_ones.insert(peer);
      if (!is_silent) silent_ones.erase(peer);
    });
  }
  Packed details() override {
    Packed packed;
    packed.numbers = {42};
    return packed;
  }
  Packed beat() override { return {}; }

  /// Whether `condition`, looked at under the lock, becomes true.
  template <class Condition>
  bool until(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, long_enough, condition);
  }
  /// Now.
  template <class Condition>
  bool holds(Condition condition) {
    const std::lock_guard lock(mutex_);
    return condition();
  }
  template <class Action>
  void note(Action action) {
    const std::lock_guard lock(mutex_);
    action();
    changed_.notify_all();
  }

  std::vector<std::pair<int, Frame>> frames;
  std::vector<Greeting> hellos, coordinators;
  std::string refused, turn_away;
  std::set<int> silent_ones;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class TransportTest : public ::testing::TestWithParam<bool> {
 protected:
  TransportOptions options(int rank) const {
    TransportOptions options;
    options.me.rank = rank;
    options.me.digest = "the same everywhere";
    options.bind = "tcp://127.0.0.1:*";
    options.curve = GetParam();
    options.credentials = credentials_;
    options.limits = {.head_bytes = 1 << 16, .tensor_bytes = 1 << 20, .tensors = 10};
    return options;
  }
  TransportOptions worker_options(int rank, const Transport& coordinator) const {
    TransportOptions worker = options(rank);
    worker.coordinator = coordinator.endpoint();
    return worker;
  }
  static Frame numbered(std::int64_t number) {
    return {.kind = FrameKind::message, .about = "channel", .serial = number, .content = {}};
  }

  /// A coordinator and its workers 0 and 1, at work.
  struct Three {
    explicit Three(TransportTest& test)
        : coordinator(test.options(coordinator_rank), test.at_coordinator_),
          worker(test.worker_options(0, coordinator), test.at_worker_),
          other(test.worker_options(1, coordinator), test.at_other_) {
      for (Transport* transport : {&coordinator, &worker, &other}) transport->start();
    }
    Transport coordinator, worker, other;
  };

  const Credentials credentials_ = make_credentials();
  Listener at_coordinator_, at_worker_, at_other_;
};

TEST_P(TransportTest, introduces_a_worker_and_carries_frames_in_their_order) {
  Transport coordinator(options(coordinator_rank), at_coordinator_);
  coordinator.start();
  Transport worker(worker_options(3, coordinator), at_worker_);
  worker.start();
  constexpr std::int64_t many = 2000;
  for (std::int64_t i = 0; i < many; ++i) worker.send(coordinator_rank, numbered(i));
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.coordinators.empty(); }));
  ASSERT_TRUE(at_coordinator_.until([&] { return std::ssize(at_coordinator_.frames) == many; }));
  EXPECT_EQ(at_coordinator_.hellos.front().rank, 3);
  EXPECT_EQ(at_coordinator_.hellos.front().details.numbers, std::vector<std::int64_t>{42});
  for (std::int64_t i = 0; i < many; ++i) {
    ASSERT_EQ(at_coordinator_.frames[static_cast<std::size_t>(i)].first, 3);
    ASSERT_EQ(at_coordinator_.frames[static_cast<std::size_t>(i)].second.serial, i);
  }
  for (std::int64_t i = 0; i < many; ++i) coordinator.send(3, numbered(i));
  ASSERT_TRUE(at_worker_.until([&] { return std::ssize(at_worker_.frames) == many; }));
  EXPECT_EQ(at_worker_.frames.back().second.serial, many - 1);
  EXPECT_GT(worker.traffic().sent, 0);
  EXPECT_GT(worker.traffic().received, 0);
}

TEST_P(TransportTest, takes_a_worker_to_another_directly) {
  Three transports(*this);
  auto& [coordinator, worker, other] = transports;
  worker.know(1, other.endpoint());
  worker.send(1, numbered(5));
  ASSERT_TRUE(at_other_.until([&] { return !at_other_.frames.empty(); }));
  EXPECT_EQ(at_other_.frames.front().first, 0);
  EXPECT_EQ(at_other_.frames.front().second.serial, 5);
  EXPECT_TRUE(at_coordinator_.holds([&] { return at_coordinator_.frames.empty(); }));
}

TEST_P(TransportTest, turns_away_another_configuration_and_says_why) {
  Transport coordinator(options(coordinator_rank), at_coordinator_);
  coordinator.start();
  TransportOptions others = worker_options(0, coordinator);
  others.me.digest = "other options";
  Transport worker(others, at_worker_);
  worker.start();
  worker.send(coordinator_rank, numbered(1));
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.refused.empty(); }));
  EXPECT_THAT(at_worker_.refused, HasSubstr("another configuration"));
  EXPECT_TRUE(at_coordinator_.holds([&] { return at_coordinator_.hellos.empty(); })) << "the listener is not even asked";
  EXPECT_TRUE(at_coordinator_.holds([&] { return at_coordinator_.frames.empty(); }));
  EXPECT_GE(coordinator.refusals().count(), 1);
}

TEST_P(TransportTest, turns_away_whom_the_listener_does_not_want) {
  Transport coordinator(options(coordinator_rank), at_coordinator_);
  at_coordinator_.turn_away = "no room";
  coordinator.start();
  Transport worker(worker_options(0, coordinator), at_worker_);
  worker.start();
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.refused.empty(); }));
  EXPECT_EQ(at_worker_.refused, "no room");
}

TEST_P(TransportTest, takes_nothing_more_from_who_is_banned) {
  Three transports(*this);
  auto& [coordinator, worker, other] = transports;
  worker.send(coordinator_rank, numbered(1));
  ASSERT_TRUE(at_coordinator_.until([&] { return at_coordinator_.frames.size() == 1; }));
  ASSERT_TRUE(at_other_.until([&] { return !at_other_.coordinators.empty(); }));
  coordinator.ban(0, "nonsense");
  coordinator.send(1, numbered(0));  // when it comes, the ban has been carried out
  ASSERT_TRUE(at_other_.until([&] { return !at_other_.frames.empty(); }));
  worker.send(coordinator_rank, numbered(2));
  worker.flush(10);
  other.send(coordinator_rank, numbered(3));
  ASSERT_TRUE(at_coordinator_.until([&] { return at_coordinator_.frames.size() >= 2; }));
  EXPECT_EQ(at_coordinator_.frames.back().second.serial, 3);
  EXPECT_EQ(at_coordinator_.frames.size(), 2u);
}

TEST_P(TransportTest, tells_of_silence_and_of_its_end) {
  TransportOptions at_once = options(coordinator_rank);
  at_once.silence_seconds = 1;
  Transport coordinator(at_once, at_coordinator_);
  coordinator.start();
  {
    Transport worker(worker_options(0, coordinator), at_worker_);
    worker.start();
    ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.coordinators.empty(); }));
  }
  ASSERT_TRUE(at_coordinator_.until([&] { return at_coordinator_.silent_ones.contains(0); }));
  Listener again;
  Transport worker(worker_options(0, coordinator), again);  // another process of the same rank
  worker.start();
  ASSERT_TRUE(again.until([&] { return !again.coordinators.empty(); }));
  ASSERT_TRUE(at_coordinator_.until([&] { return at_coordinator_.hellos.size() == 2; }));
  worker.send(coordinator_rank, numbered(9));
  ASSERT_TRUE(at_coordinator_.until([&] { return !at_coordinator_.frames.empty(); }));
}

TEST_P(TransportTest, a_worker_finds_a_coordinator_that_has_been_started_again) {
  auto coordinator = std::make_unique<Transport>(options(coordinator_rank), at_coordinator_);
  coordinator->start();
  Transport worker(worker_options(0, *coordinator), at_worker_);
  worker.start();
  ASSERT_TRUE(at_worker_.until([&] { return at_worker_.coordinators.size() == 1; }));
  TransportOptions second = options(coordinator_rank);
  second.bind = coordinator->endpoint();
  second.me.incarnation = 1;
  coordinator.reset();
  Listener at_second;
  Transport again(second, at_second);
  again.start();
  ASSERT_TRUE(at_worker_.until([&] { return at_worker_.coordinators.size() >= 2; }));
  EXPECT_EQ(at_worker_.coordinators.back().incarnation, 1);
  EXPECT_TRUE(at_second.holds([&] { return at_second.hellos.front().rank == 0; }));
}

/// Whatever a peer says where it can be found.
TEST_P(TransportTest, an_endpoint_that_is_none_ends_no_process) {
  Three all(*this);
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.coordinators.empty(); }));
  std::int64_t refused = 0;
  for (const std::string endpoint : {"nonsense", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:99999999", "tcp://no such host:1",
                                     "inproc://zap", "ipc:///tmp/x", "gopher://127.0.0.1:70", "tcp://127.0.0.1:*", "\x01\xff"}) {
    all.worker.know(7, endpoint);
    all.worker.send(7, numbered(1));
    const auto end = std::chrono::steady_clock::now() + long_enough;
    while (all.worker.refusals().count() == refused && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
    EXPECT_GT(all.worker.refusals().count(), refused) << endpoint;
    refused = all.worker.refusals().count();
  }
  all.worker.send(coordinator_rank, numbered(5));
  EXPECT_TRUE(at_coordinator_.until([&] { return !at_coordinator_.frames.empty(); })) << "the transport works on";
  EXPECT_THROW(
      {
        TransportOptions lost = options(3);
        lost.coordinator = "nowhere";
        Transport post(lost, at_other_);
        post.start();
      },
      DataError);
}

std::atomic<pthread_t> main_thread;
std::atomic<int> signals_elsewhere{0}, signals_here{0};

void note_signal(int) {
  ++(pthread_equal(pthread_self(), main_thread) != 0 ? signals_here : signals_elsewhere);
}

/// They would interrupt what it waits for, and run handlers that belong to others.
TEST_P(TransportTest, its_threads_take_no_signals) {
  signals_here = signals_elsewhere = 0;
  main_thread = pthread_self();
  struct sigaction action {};
  action.sa_handler = note_signal;
  struct sigaction before {};
  sigaction(SIGUSR1, &action, &before);
  {
    Three all(*this);
    ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.coordinators.empty(); }));
    sigset_t these, mask;
    sigemptyset(&these);
    sigaddset(&these, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &these, &mask);
    for (int i = 0; i < 100; ++i) {
      kill(getpid(), SIGUSR1);
      all.worker.send(coordinator_rank, numbered(i));
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(at_coordinator_.until([&] { return at_coordinator_.frames.size() == 100; }));
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  }
  sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(signals_elsewhere, 0);
  EXPECT_GT(signals_here, 0);
}

TEST_P(TransportTest, refuses_an_address_that_is_taken) {
  const Transport coordinator(options(coordinator_rank), at_coordinator_);
  TransportOptions second = options(coordinator_rank);
  second.bind = coordinator.endpoint();
  EXPECT_THROW(Transport(second, at_worker_), UsageError);
}

INSTANTIATE_TEST_SUITE_P(Keys, TransportTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "curve" : "token"; });

}  // namespace transport_transport_test
}  // namespace rubato
