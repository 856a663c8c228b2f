// Members of sums as threads of this process, each with connections of its own.
#include "rubato/collectives/collectives.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "rubato/context/context.h"
#include "rubato/wire/tensor_sum.h"

namespace rubato {
namespace collectives_collectives_test {

using namespace std::chrono_literals;
using Sum = std::shared_ptr<const Summable>;
using Members = std::vector<std::int64_t>;

constexpr auto long_enough = 60s;  // only a failure waits for so long

std::unique_ptr<TensorSum> part_of(double value) {
  auto part = std::make_unique<TensorSum>();
  part->tensors = {torch::full({2, 3}, value), torch::Tensor(), torch::full({5}, 10 * value)};
  return part;
}

double first_of(const Sum& sum) {
  return dynamic_cast<const TensorSum&>(*sum).tensors.at(0).index({0, 0}).item<double>();
}

/// What a member asks after a death, and a way to wait for it.
class Questions {
 public:
  void add(const membership::SumId& question) {
    const std::lock_guard lock(mutex_);
    all_.push_back(question);
    changed_.notify_all();
  }
  membership::SumId first() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, long_enough, [&] { return !all_.empty(); })) throw std::runtime_error("nobody has asked");
    return all_.front();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<membership::SumId> all_;
};

/// Members of one process meet here.
class Board final : public Rendezvous {
 public:
  void put(const std::string& key, const std::string& value) override {
    const std::lock_guard lock(mutex_);
    values_[key] = value;
    changed_.notify_all();
  }
  std::optional<std::string> get(const std::string& key) override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, 50ms, [&] { return values_.contains(key); })) return std::nullopt;
    return values_.at(key);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
};

/// The way to a board that is barred at first: nobody is found there. Or broken: nobody can even ask.
class Detour final : public Rendezvous {
 public:
  explicit Detour(std::shared_ptr<Rendezvous> board, bool broken = false) : board_(std::move(board)), broken_(broken) {}
  void put(const std::string& key, const std::string& value) override {
    if (open_) return board_->put(key, value);
    if (!came_.exchange(true)) somebody_came_.set_value();
    if (broken_) throw std::runtime_error("no way");
  }
  std::optional<std::string> get(const std::string& key) override {
    if (open_) return board_->get(key);
    std::this_thread::sleep_for(1ms);
    return std::nullopt;
  }
  void wait_for_somebody() {
    if (somebody_came_.get_future().wait_for(long_enough) != std::future_status::ready) throw std::runtime_error("nobody comes");
  }
  void open() { open_ = true; }

 private:
  const std::shared_ptr<Rendezvous> board_;
  const bool broken_;
  std::atomic<bool> open_{false}, came_{false};
  std::promise<void> somebody_came_;
};

class CollectivesTest : public ::testing::Test {
 protected:
  std::unique_ptr<Collectives> member(int replica, const Members& members, std::int64_t group_version = 1) {
    auto one = std::make_unique<Collectives>("127.0.0.1", board_);
    one->meet(group_version, members, replica, 0);
    return one;
  }
  std::future<Sum> sums(Collectives& member, double value, int number = -1) {
    return std::async(std::launch::async, [this, &member, value, number] {
      GroupSpec group = group_;
      group.number = number;
      return member.all_reduce(group, 0, part_of(value));
    });
  }
  static Sum result(std::future<Sum>& sum) {
    if (sum.wait_for(long_enough) != std::future_status::ready) throw std::runtime_error("the sum hangs");
    return sum.get();
  }
  /// Answers everything that `asker` asks with what `other` has finished.
  static void answer_from(Collectives& asker, std::int64_t number, Collectives& other) {
    asker.ask_with([&asker, number, &other](const membership::SumId& question) {
      if (const auto known = other.asked(question)) asker.answer(number, question, known->outcome, known->sum);
    });
  }

  const std::shared_ptr<Board> board_ = std::make_shared<Board>();
  GroupSpec group_{.name = "weights", .size = 3};
};

TEST_F(CollectivesTest, adds_the_parts_of_all_members) {
  const auto a = member(0, {0, 1, 2}), b = member(1, {0, 1, 2}), c = member(2, {0, 1, 2});
  for (int round = 1; round <= 3; ++round) {
    auto x = sums(*a, round), y = sums(*b, 10 * round), z = sums(*c, 100 * round);
    for (auto* one : {&x, &y, &z}) {
      const Sum sum = result(*one);
      EXPECT_EQ(first_of(sum), 111 * round);
      EXPECT_EQ(sum->parts(), 3);
      EXPECT_FALSE(dynamic_cast<const TensorSum&>(*sum).tensors.at(1).defined());
      EXPECT_EQ(dynamic_cast<const TensorSum&>(*sum).tensors.at(2).sizes(), torch::IntArrayRef({5}));
    }
  }
}

TEST_F(CollectivesTest, sums_with_numbers_are_under_way_together) {
  const auto a = member(0, {0, 1}), b = member(1, {0, 1});
  auto a0 = sums(*a, 1, 0), a1 = sums(*a, 2, 1);
  auto b1 = sums(*b, 20, 1);  // the later one first
  EXPECT_EQ(first_of(result(a1)), 22);
  auto b0 = sums(*b, 10, 0);
  EXPECT_EQ(first_of(result(a0)), 11);
  EXPECT_EQ(first_of(result(b1)), 22);
  EXPECT_EQ(first_of(result(b0)), 11);
}

/// 3 and 19 share connections. Members that begin them in different orders would get each other's.
TEST_F(CollectivesTest, sums_of_different_numbers_never_mix) {
  const auto a = member(0, {0, 1}), b = member(1, {0, 1});
  auto a3 = sums(*a, 1, 3);
  std::this_thread::sleep_for(100ms);  // begun
  auto a19 = sums(*a, 2, 19);
  auto b3 = sums(*b, 10, 3);
  EXPECT_EQ(first_of(result(a3)), 11);
  EXPECT_EQ(first_of(result(b3)), 11);
  auto b19 = sums(*b, 20, 19);
  EXPECT_EQ(first_of(result(a19)), 22);
  EXPECT_EQ(first_of(result(b19)), 22);
  auto a4 = sums(*a, 1, 4), b20 = sums(*b, 1, 20);
  EXPECT_THROW(result(a4), std::logic_error);
  EXPECT_THROW(result(b20), std::logic_error);
}

TEST_F(CollectivesTest, the_survivors_finish_a_sum_without_the_dead) {
  const auto a = member(0, {0, 1, 2}), b = member(1, {0, 1, 2});  // 2 never comes
  answer_from(*a, 1, *b);
  answer_from(*b, 0, *a);
  auto x = sums(*a, 1), y = sums(*b, 10);
  for (Collectives* one : {a.get(), b.get()}) one->set_members({2, {0, 1}});
  for (auto* one : {&x, &y}) {
    const Sum sum = result(*one);
    EXPECT_EQ(first_of(sum), 11);
    EXPECT_EQ(sum->parts(), 2);
  }
  auto again = sums(*a, 2);
  auto and_again = sums(*b, 20);
  EXPECT_EQ(first_of(result(again)), 22);
  EXPECT_EQ(first_of(result(and_again)), 22);
}

TEST_F(CollectivesTest, the_last_survivor_goes_on_alone) {
  const auto way = std::make_shared<Detour>(board_);
  Collectives a("127.0.0.1", way);
  a.meet(1, {0, 1}, 0, 0);
  auto x = sums(a, 7);
  way->wait_for_somebody();
  a.set_members({2, {0}});
  const Sum sum = result(x);
  EXPECT_EQ(first_of(sum), 7);
  EXPECT_EQ(sum->parts(), 1);
}

/// 0 and 2 finish a sum that 1 does not: here somebody else gives 1's part, and is gone. Then 2 dies.
TEST_F(CollectivesTest, who_has_not_finished_a_sum_takes_it_from_who_has) {
  const auto a = member(0, {0, 1, 2}), c = member(2, {0, 1, 2});
  {
    const auto stand_in = member(1, {0, 1, 2});
    auto x = sums(*a, 1), y = sums(*stand_in, 10), z = sums(*c, 100);
    for (auto* one : {&x, &y, &z}) EXPECT_EQ(first_of(result(*one)), 111);
  }
  const auto way = std::make_shared<Detour>(board_);  // 1 does not get far at first
  Collectives b("127.0.0.1", way);
  b.meet(1, {0, 1, 2}, 1, 0);
  Questions questions;
  b.ask_with([&](const membership::SumId& question) { questions.add(question); });
  auto late = sums(b, 10);
  way->wait_for_somebody();
  way->open();
  a->set_members({2, {0, 1}});
  b.set_members({2, {0, 1}});
  const membership::SumId question = questions.first();
  EXPECT_EQ(question.group, "weights");
  EXPECT_EQ(question.number, 0);
  EXPECT_EQ(question.version, 2);
  b.answer(2, question, membership::SumOutcome::lacking, nullptr);  // no member any more: its answer counts for nothing
  EXPECT_EQ(late.wait_for(200ms), std::future_status::timeout);
  const auto known = a->asked(question);
  ASSERT_TRUE(known.has_value());
  EXPECT_EQ(known->outcome, membership::SumOutcome::finished);
  b.answer(0, question, known->outcome, known->sum);
  const Sum sum = result(late);
  EXPECT_EQ(first_of(sum), 111);
  EXPECT_EQ(sum->parts(), 3);
  answer_from(b, 0, *a);
  answer_from(*a, 1, b);
  auto x = sums(*a, 2), y = sums(b, 20);
  EXPECT_EQ(first_of(result(x)), 22);
  EXPECT_EQ(first_of(result(y)), 22);
}

TEST_F(CollectivesTest, an_answer_to_an_older_question_is_dropped) {
  const auto way = std::make_shared<Detour>(board_);
  Collectives a("127.0.0.1", way);
  a.meet(1, {0, 1, 2}, 0, 0);
  const auto b = member(1, {0, 1, 2});
  Questions questions;
  a.ask_with([&](const membership::SumId& question) { questions.add(question); });
  auto x = sums(a, 1);
  way->wait_for_somebody();  // it has begun before the news
  way->open();
  a.set_members({2, {0, 1}});
  const membership::SumId question = questions.first();
  membership::SumId older = question;
  older.version = 1;
  a.answer(1, older, membership::SumOutcome::finished, part_of(1000));
  EXPECT_EQ(x.wait_for(200ms), std::future_status::timeout);
  a.answer(1, question, membership::SumOutcome::lacking, nullptr);
  b->set_members({2, {0, 1}});
  auto y = sums(*b, 10);
  EXPECT_EQ(first_of(result(x)), 11);
  EXPECT_EQ(first_of(result(y)), 11);
}

/// The connections fail although everybody is alive: the same members meet once more.
TEST_F(CollectivesTest, complains_when_connections_fail_and_meets_again) {
  const auto way = std::make_shared<Detour>(board_, true);
  Collectives a("127.0.0.1", way);
  a.meet(1, {0, 1}, 0, 0);
  const auto b = member(1, {0, 1});
  std::promise<std::int64_t> complaint;
  std::atomic<bool> complained{false};
  a.complain_with([&](std::int64_t group_version) {
    if (!complained.exchange(true)) complaint.set_value(group_version);
  });
  answer_from(a, 1, *b);
  answer_from(*b, 0, a);
  auto x = sums(a, 1), y = sums(*b, 10);
  auto heard = complaint.get_future();
  ASSERT_EQ(heard.wait_for(long_enough), std::future_status::ready);
  EXPECT_EQ(heard.get(), 1);
  way->open();
  for (Collectives* one : {&a, b.get()}) one->set_members({2, {0, 1}});
  EXPECT_EQ(first_of(result(x)), 11);
  EXPECT_EQ(first_of(result(y)), 11);
}

int threads_of_this_process() {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}));
}

/// Machines that come and go for a week: each version of the members has connections, threads and descriptors of its own.
TEST_F(CollectivesTest, connections_that_are_given_up_end) {
  const auto a = member(0, {0, 1}), b = member(1, {0, 1});
  int before = 0;
  for (std::int64_t version = 2; version < 30; ++version) {
    auto x = sums(*a, 1), y = sums(*b, 10);
    EXPECT_EQ(first_of(result(x)), 11);
    EXPECT_EQ(first_of(result(y)), 11);
    for (Collectives* one : {a.get(), b.get()}) one->set_members({version, {0, 1}});
    if (version == 5) before = threads_of_this_process();
  }
  std::this_thread::sleep_for(200ms);  // they end on a thread of their own
  EXPECT_LE(threads_of_this_process(), before + 6);
}

TEST_F(CollectivesTest, an_interrupt_ends_a_wait_for_members_that_never_come) {
  const auto a = member(0, {0, 1});
  auto x = sums(*a, 1);
  a->interrupt();
  EXPECT_THROW(result(x), Stopped);
  EXPECT_THROW(a->all_reduce(group_, 0, part_of(1)), Stopped);
}

}  // namespace collectives_collectives_test
}  // namespace rubato
