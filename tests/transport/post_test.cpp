// Two posts of one process that talk over loopback.
#include "rubato/transport/post.h"

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
namespace transport_post_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr auto long_enough = 60s;  // only a failure waits for so long

/// Writes down what a post tells.
class Listener final : public PostListener {
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
  void welcomed(const Greeting& home) override {
    note([&] { homes.push_back(home); });
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
  std::vector<Greeting> hellos, homes;
  std::string refused, turn_away;
  std::set<int> silent_ones;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class PostTest : public ::testing::TestWithParam<bool> {
 protected:
  PostOptions options(int rank) const {
    PostOptions options;
    options.me.rank = rank;
    options.me.digest = "the same everywhere";
    options.bind = "tcp://127.0.0.1:*";
    options.curve = GetParam();
    options.credentials = credentials_;
    options.limits = {.head_bytes = 1 << 16, .tensor_bytes = 1 << 20, .tensors = 10};
    return options;
  }
  PostOptions worker_options(int rank, const Post& home) const {
    PostOptions worker = options(rank);
    worker.home = home.endpoint();
    return worker;
  }
  static Frame numbered(std::int64_t number) {
    return {.kind = FrameKind::message, .about = "channel", .serial = number, .content = {}};
  }

  /// A home and its workers 0 and 1, at work.
  struct Three {
    explicit Three(PostTest& test)
        : home(test.options(home_rank), test.at_home_),
          worker(test.worker_options(0, home), test.at_worker_),
          other(test.worker_options(1, home), test.at_other_) {
      for (Post* post : {&home, &worker, &other}) post->start();
    }
    Post home, worker, other;
  };

  const Credentials credentials_ = make_credentials();
  Listener at_home_, at_worker_, at_other_;
};

TEST_P(PostTest, introduces_a_worker_and_carries_frames_in_their_order) {
  Post home(options(home_rank), at_home_);
  home.start();
  Post worker(worker_options(3, home), at_worker_);
  worker.start();
  constexpr std::int64_t many = 2000;
  for (std::int64_t i = 0; i < many; ++i) worker.send(home_rank, numbered(i));
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.homes.empty(); }));
  ASSERT_TRUE(at_home_.until([&] { return std::ssize(at_home_.frames) == many; }));
  EXPECT_EQ(at_home_.hellos.front().rank, 3);
  EXPECT_EQ(at_home_.hellos.front().details.numbers, std::vector<std::int64_t>{42});
  for (std::int64_t i = 0; i < many; ++i) {
    ASSERT_EQ(at_home_.frames[static_cast<std::size_t>(i)].first, 3);
    ASSERT_EQ(at_home_.frames[static_cast<std::size_t>(i)].second.serial, i);
  }
  for (std::int64_t i = 0; i < many; ++i) home.send(3, numbered(i));
  ASSERT_TRUE(at_worker_.until([&] { return std::ssize(at_worker_.frames) == many; }));
  EXPECT_EQ(at_worker_.frames.back().second.serial, many - 1);
  EXPECT_GT(worker.traffic().sent, 0);
  EXPECT_GT(worker.traffic().received, 0);
}

TEST_P(PostTest, takes_a_worker_to_another_directly) {
  Three posts(*this);
  auto& [home, worker, other] = posts;
  worker.know(1, other.endpoint());
  worker.send(1, numbered(5));
  ASSERT_TRUE(at_other_.until([&] { return !at_other_.frames.empty(); }));
  EXPECT_EQ(at_other_.frames.front().first, 0);
  EXPECT_EQ(at_other_.frames.front().second.serial, 5);
  EXPECT_TRUE(at_home_.holds([&] { return at_home_.frames.empty(); }));
}

TEST_P(PostTest, turns_away_another_configuration_and_says_why) {
  Post home(options(home_rank), at_home_);
  home.start();
  PostOptions others = worker_options(0, home);
  others.me.digest = "other options";
  Post worker(others, at_worker_);
  worker.start();
  worker.send(home_rank, numbered(1));
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.refused.empty(); }));
  EXPECT_THAT(at_worker_.refused, HasSubstr("another configuration"));
  EXPECT_TRUE(at_home_.holds([&] { return at_home_.hellos.empty(); })) << "the listener is not even asked";
  EXPECT_TRUE(at_home_.holds([&] { return at_home_.frames.empty(); }));
  EXPECT_GE(home.refusals().count(), 1);
}

TEST_P(PostTest, turns_away_whom_the_listener_does_not_want) {
  Post home(options(home_rank), at_home_);
  at_home_.turn_away = "no room";
  home.start();
  Post worker(worker_options(0, home), at_worker_);
  worker.start();
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.refused.empty(); }));
  EXPECT_EQ(at_worker_.refused, "no room");
}

TEST_P(PostTest, takes_nothing_more_from_who_is_banned) {
  Three posts(*this);
  auto& [home, worker, other] = posts;
  worker.send(home_rank, numbered(1));
  ASSERT_TRUE(at_home_.until([&] { return at_home_.frames.size() == 1; }));
  ASSERT_TRUE(at_other_.until([&] { return !at_other_.homes.empty(); }));
  home.ban(0, "nonsense");
  home.send(1, numbered(0));  // when it comes, the ban has been carried out
  ASSERT_TRUE(at_other_.until([&] { return !at_other_.frames.empty(); }));
  worker.send(home_rank, numbered(2));
  worker.flush(10);
  other.send(home_rank, numbered(3));
  ASSERT_TRUE(at_home_.until([&] { return at_home_.frames.size() >= 2; }));
  EXPECT_EQ(at_home_.frames.back().second.serial, 3);
  EXPECT_EQ(at_home_.frames.size(), 2u);
}

TEST_P(PostTest, tells_of_silence_and_of_its_end) {
  PostOptions at_once = options(home_rank);
  at_once.silence_seconds = 1;
  Post home(at_once, at_home_);
  home.start();
  {
    Post worker(worker_options(0, home), at_worker_);
    worker.start();
    ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.homes.empty(); }));
  }
  ASSERT_TRUE(at_home_.until([&] { return at_home_.silent_ones.contains(0); }));
  Listener again;
  Post worker(worker_options(0, home), again);  // another process of the same rank
  worker.start();
  ASSERT_TRUE(again.until([&] { return !again.homes.empty(); }));
  ASSERT_TRUE(at_home_.until([&] { return at_home_.hellos.size() == 2; }));
  worker.send(home_rank, numbered(9));
  ASSERT_TRUE(at_home_.until([&] { return !at_home_.frames.empty(); }));
}

TEST_P(PostTest, a_worker_finds_a_home_that_has_been_started_again) {
  auto home = std::make_unique<Post>(options(home_rank), at_home_);
  home->start();
  Post worker(worker_options(0, *home), at_worker_);
  worker.start();
  ASSERT_TRUE(at_worker_.until([&] { return at_worker_.homes.size() == 1; }));
  PostOptions second = options(home_rank);
  second.bind = home->endpoint();
  second.me.incarnation = 1;
  home.reset();
  Listener at_second;
  Post again(second, at_second);
  again.start();
  ASSERT_TRUE(at_worker_.until([&] { return at_worker_.homes.size() >= 2; }));
  EXPECT_EQ(at_worker_.homes.back().incarnation, 1);
  EXPECT_TRUE(at_second.holds([&] { return at_second.hellos.front().rank == 0; }));
}

/// Whatever a peer says where it can be found.
TEST_P(PostTest, an_endpoint_that_is_none_ends_no_process) {
  Three all(*this);
  ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.homes.empty(); }));
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
  all.worker.send(home_rank, numbered(5));
  EXPECT_TRUE(at_home_.until([&] { return !at_home_.frames.empty(); })) << "the post works on";
  EXPECT_THROW(
      {
        PostOptions lost = options(3);
        lost.home = "nowhere";
        Post post(lost, at_other_);
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
TEST_P(PostTest, its_threads_take_no_signals) {
  signals_here = signals_elsewhere = 0;
  main_thread = pthread_self();
  struct sigaction action {};
  action.sa_handler = note_signal;
  struct sigaction before {};
  sigaction(SIGUSR1, &action, &before);
  {
    Three all(*this);
    ASSERT_TRUE(at_worker_.until([&] { return !at_worker_.homes.empty(); }));
    sigset_t these, mask;
    sigemptyset(&these);
    sigaddset(&these, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &these, &mask);
    for (int i = 0; i < 100; ++i) {
      kill(getpid(), SIGUSR1);
      all.worker.send(home_rank, numbered(i));
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(at_home_.until([&] { return at_home_.frames.size() == 100; }));
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  }
  sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(signals_elsewhere, 0);
  EXPECT_GT(signals_here, 0);
}

TEST_P(PostTest, refuses_an_address_that_is_taken) {
  const Post home(options(home_rank), at_home_);
  PostOptions second = options(home_rank);
  second.bind = home.endpoint();
  EXPECT_THROW(Post(second, at_worker_), UsageError);
}

INSTANTIATE_TEST_SUITE_P(Keys, PostTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "curve" : "token"; });

}  // namespace transport_post_test
}  // namespace rubato
