#include "rubato/data/batch_source.h"

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "rubato/core/error.h"
#include "sample_files.h"

namespace rubato::test {
namespace data_batch_source_test {

/// Samples 0..`count`-1 of two tokens, target one more.
std::shared_ptr<Dataset> numbers(std::int64_t count) {
  const torch::Tensor tokens = torch::arange(2 * count, torch::kInt64).view({count, 2});
  return std::make_shared<Dataset>(Dataset{"numbers", tokens, tokens + 1, 2 * count + 1, {}, {}});
}

std::shared_ptr<const BatchMaker> maker_of(std::shared_ptr<Dataset> data) {
  BatchOptions options;
  options.batch_size = 4;
  return std::make_shared<const BatchMaker>(std::move(data), options);
}

/// Every statement holds with a thread that prepares and without one.
class BatchSourceTest : public ::testing::TestWithParam<std::int64_t> {
 protected:
  std::vector<std::int64_t> remaining() {
    std::vector<std::int64_t> indices;
    while (const auto batch = source_.next(actor_)) indices.push_back(batch->index);
    return indices;
  }

  std::shared_ptr<Dataset> data_ = numbers(10);
  std::shared_ptr<const BatchMaker> maker_ = maker_of(data_);
  BatchSource source_{maker_, GetParam()};
  Bystander actor_;
};
INSTANTIATE_TEST_SUITE_P(prefetch, BatchSourceTest, ::testing::Values(0, 1, 4, 1000));

TEST_P(BatchSourceTest, hands_out_a_segment_in_order_and_then_nothing) {
  source_.open(2, 9);
  for (std::int64_t i = 2; i < 9; ++i) {
    const auto batch = source_.next(actor_);
    ASSERT_TRUE(batch);
    EXPECT_EQ(batch->index, i);
    EXPECT_EQ(batch->epoch, i / 3);
    EXPECT_TRUE(torch::equal(batch->input, maker_->make(i).input));
    EXPECT_TRUE(torch::equal(batch->target, maker_->make(i).target));
  }
  EXPECT_FALSE(source_.next(actor_));
  EXPECT_FALSE(source_.next(actor_));
  EXPECT_EQ(source_.position(), 9);
}

TEST_P(BatchSourceTest, has_nothing_before_it_is_opened_and_in_an_empty_segment) {
  EXPECT_FALSE(source_.next(actor_));
  source_.open(5, 5);
  EXPECT_FALSE(source_.next(actor_));
  EXPECT_EQ(source_.position(), 5);
}

TEST_P(BatchSourceTest, goes_on_when_opened_again) {
  source_.open(0, 3);
  EXPECT_EQ(remaining(), (std::vector<std::int64_t>{0, 1, 2}));
  source_.open(source_.position(), 5);
  EXPECT_EQ(remaining(), (std::vector<std::int64_t>{3, 4}));
}

TEST_P(BatchSourceTest, forgets_what_was_prepared_when_opened_somewhere_else) {
  source_.open(0, 100);
  EXPECT_EQ(source_.next(actor_)->index, 0);
  source_.open(50, 52);
  EXPECT_EQ(remaining(), (std::vector<std::int64_t>{50, 51}));
  source_.open(1, 3);
  const auto batch = source_.next(actor_);
  EXPECT_TRUE(torch::equal(batch->input, maker_->make(1).input));
  EXPECT_EQ(remaining(), (std::vector<std::int64_t>{2}));
}

TEST_P(BatchSourceTest, hands_out_nothing_after_a_stop_until_opened_again) {
  source_.open(0, 10);
  source_.next(actor_);
  source_.stop();
  EXPECT_FALSE(source_.next(actor_));
  EXPECT_EQ(source_.position(), 1);
  source_.open(source_.position(), 4);
  EXPECT_EQ(remaining(), (std::vector<std::int64_t>{1, 2, 3}));
}

TEST_P(BatchSourceTest, shared_by_threads_hands_each_batch_to_exactly_one) {
  source_.open(0, 300);
  std::vector<std::vector<Batch>> seen(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : seen) {
      threads.emplace_back([&] {
        Bystander actor;
        while (auto batch = source_.next(actor)) mine.push_back(std::move(*batch));
      });
    }
  }
  std::map<std::int64_t, int> times;
  for (const auto& mine : seen) {
    for (std::size_t i = 0; i < mine.size(); ++i) {
      ++times[mine[i].index];
      EXPECT_TRUE(i == 0 || mine[i - 1].index < mine[i].index);
      EXPECT_TRUE(torch::equal(mine[i].input, maker_->make(mine[i].index).input));
    }
  }
  EXPECT_EQ(times.size(), 300u);
  for (const auto& [index, count] : times) EXPECT_EQ(count, 1) << index;
}

TEST_P(BatchSourceTest, stopped_by_another_thread_ends_every_caller_without_losing_a_batch) {
  source_.open(0, std::numeric_limits<std::int64_t>::max());
  std::vector<std::set<std::int64_t>> seen(3);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : seen) {
      threads.emplace_back([&] {
        Bystander actor;
        while (const auto batch = source_.next(actor)) {
          mine.insert(batch->index);
          if (batch->index >= 50) source_.stop();
        }
      });
    }
  }
  std::set<std::int64_t> all;
  for (const auto& mine : seen) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(static_cast<std::int64_t>(all.size()), source_.position());
  EXPECT_EQ(*all.rbegin(), source_.position() - 1);
}

/// Notes events, and looks at the source from inside its ordering point, where no lock may be held around the action.
class Recorder : public Actor {
 public:
  explicit Recorder(const BatchSource& source) : source_(source) {}
  const std::string& name() const override { return name_; }
  void ordered(Event& event, FunctionRef<void()> action) override {
    const std::int64_t before = source_.position();
    action();
    EXPECT_EQ(source_.position(), event.batch < 0 ? before : before + 1);
    EXPECT_EQ(event.kind, EventKind::take_batch);
    batches.push_back(event.batch);
  }
  std::vector<std::int64_t> batches;

 private:
  const BatchSource& source_;
  std::string name_ = "recorder";
};

TEST_P(BatchSourceTest, takes_the_index_at_the_ordering_point_of_the_actor) {
  source_.open(4, 6);
  Recorder recorder(source_);
  EXPECT_EQ(source_.next(recorder)->index, 4);
  EXPECT_EQ(source_.next(recorder)->index, 5);
  EXPECT_FALSE(source_.next(recorder));
  EXPECT_EQ(recorder.batches, (std::vector<std::int64_t>{4, 5, -1}));
}

/// Takes an index and then fails, as a role does whose run is being cancelled.
class Quitter : public Actor {
 public:
  const std::string& name() const override { return name_; }
  void ordered(Event&, FunctionRef<void()> action) override {
    action();
    throw std::runtime_error("cancelled");
  }

 private:
  std::string name_ = "quitter";
};

TEST_P(BatchSourceTest, serves_the_others_when_a_role_fails_between_taking_and_fetching) {
  source_.open(0, 12);
  Quitter quitter;
  for (int i = 0; i < 6; ++i) EXPECT_THROW(source_.next(quitter), std::runtime_error);
  EXPECT_EQ(remaining(), (std::vector<std::int64_t>{6, 7, 8, 9, 10, 11}));
}

TEST_P(BatchSourceTest, rethrows_what_goes_wrong_while_preparing_and_recovers_when_opened_again) {
  // A data set that gets targets of a wrong type behind the maker's back stands for any failure while a batch is made.
  const torch::Tensor targets = std::exchange(data_->targets, data_->targets.to(torch::kFloat32));
  source_.open(0, 5);
  EXPECT_THROW(source_.next(actor_), c10::Error);
  EXPECT_THROW(source_.next(actor_), c10::Error);
  data_->targets = targets;
  source_.open(0, 5);
  EXPECT_EQ(remaining().size(), 5u);
}

TEST_P(BatchSourceTest, may_be_destroyed_in_the_middle_of_a_segment) {
  BatchSource other(maker_, GetParam());
  other.open(0, std::numeric_limits<std::int64_t>::max());
  EXPECT_TRUE(other.next(actor_));
}

TEST_P(BatchSourceTest, leaves_the_intra_op_threads_of_the_roles_alone) {
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  source_.open(0, 2);
  remaining();
  std::jthread([] { EXPECT_EQ(at::get_num_threads(), 3); });
  at::set_num_threads(before);
}

TEST_P(BatchSourceTest, refuses_a_segment_that_ends_before_it_begins) {
  EXPECT_MENTIONS(complaint<UsageError>([&] { source_.open(3, 2); }), "batches 3 up to 2 are no segment");
  EXPECT_MENTIONS(complaint<UsageError>([&] { source_.open(-1, 2); }), "batches -1 up to 2 are no segment");
}

TEST(BatchSource, refuses_a_negative_prefetch) {
  EXPECT_MENTIONS(complaint<UsageError>([] { BatchSource(maker_of(numbers(4)), -1); }),
                  "prefetch -1 is not allowed: give 0 or more batches");
}

}  // namespace data_batch_source_test
}  // namespace rubato::test
