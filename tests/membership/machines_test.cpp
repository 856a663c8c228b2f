// Short histories of the faults that the machines were built against, each as it once happened.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "rubato/membership/coordinator_machine.h"
#include "rubato/membership/sum_machine.h"
#include "rubato/membership/worker_machine.h"

namespace membership_machines_test {

using namespace rubato::membership;

GroupOptions fixed(int workers, WhenWorkerDies policy = WhenWorkerDies::wait) {
  return {.policy = Policy::fixed, .when_worker_dies = policy, .workers = workers, .patience = 10, .total_steps = 8};
}

ProcessId process(int rank, int incarnation = 0) {
  return {100 + rank + 10 * incarnation, "host", incarnation};
}

/// A coordinator whose workers are played by the test.
class Group {
 public:
  explicit Group(const GroupOptions& options) : machine(options) {}

  void hello(int rank, int incarnation = 0) {
    EXPECT_EQ(machine.hello(rank, process(rank, incarnation), "endpoint", status(rank, Phase::idle, 0, 0, incarnation), now), "");
  }
  Status status(int rank, Phase phase, std::int64_t term, std::int64_t segment, int incarnation = 0) {
    return {++serial_, process(rank, incarnation), phase, term, segment};
  }
  void says(int rank, const Message& message) { machine.received(rank, message, now); }
  void finishes(int rank, std::int64_t segment, std::int64_t position) {
    says(rank, Finished{process(rank), machine.term(), segment, position, ""});
  }
  /// What was sent to `rank` since the last call of this for anybody.
  template <class T>
  std::vector<T> sent(int rank) {
    for (Action& action : machine.take_actions()) {
      if (auto* send = std::get_if<Send>(&action)) sent_.push_back(std::move(*send));
    }
    std::vector<T> found;
    std::erase_if(sent_, [&](const Send& send) {
      const T* is = send.rank == rank ? std::get_if<T>(&send.message) : nullptr;
      if (is != nullptr) found.push_back(*is);
      return is != nullptr;
    });
    return found;
  }
  template <class T>
  bool has_task() const {
    return std::holds_alternative<T>(machine.task());
  }
  void pass(double seconds) {
    for (const double until = now + seconds; now < until; now += 0.1) machine.tick(now);
  }
  /// A segment of all workers that are there has begun.
  void begin(std::int64_t first, std::int64_t end) {
    machine.run_segment(first, end, now);
    machine.tick(now);
    ASSERT_TRUE(has_task<OpenSegment>());
    machine.task_done(now);
  }

  CoordinatorMachine machine;
  double now = 100;

 private:
  std::int64_t serial_ = 0;
  std::vector<Send> sent_;
};

WorkerMachine worker_of(Policy policy = Policy::fixed) {
  WorkerMachine worker({.policy = policy, .patience = 10, .process = process(0)}, 0);
  worker.welcomed({1, "host", 0}, 0);
  return worker;
}

template <class T>
std::vector<T> actions(WorkerMachine& worker) {
  std::vector<T> found;
  for (WorkerAction& action : worker.take_actions()) {
    if (auto* is = std::get_if<T>(&action)) found.push_back(*is);
  }
  return found;
}

// B. A failed job says so.

TEST(CoordinatorMachine, a_worker_that_comes_when_the_job_has_ended_is_told_its_code) {
  Group group(fixed(2));
  group.hello(0);
  group.machine.job_over(4, "diverged", true, group.now);
  EXPECT_THAT(group.sent<Leave>(0), testing::SizeIs(testing::Ge(1u)));
  group.pass(1);
  EXPECT_FALSE(group.has_task<AllTold>()) << "worker 1 is still on its way";
  group.hello(1);
  const auto told = group.sent<Leave>(1);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().code, 4);
}

TEST(CoordinatorMachine, says_the_end_until_it_has_been_heard) {
  Group group(fixed(1));
  group.hello(0);
  group.machine.job_over(0, "", false, group.now);
  group.sent<Leave>(0);  // lost
  group.pass(1);
  EXPECT_GE(group.sent<Leave>(0).size(), 2u);
  EXPECT_FALSE(group.has_task<AllTold>());
  group.says(0, Left{process(0)});
  group.pass(0.1);
  EXPECT_TRUE(group.has_task<AllTold>());
}

TEST(CoordinatorMachine, does_not_wait_for_ever_for_one_that_never_answers) {
  Group group(fixed(1));
  group.hello(0);
  group.machine.job_over(3, "", true, group.now);
  group.pass(CoordinatorMachine::longest_farewell + 0.3);
  EXPECT_TRUE(group.has_task<AllTold>());
}

TEST(CoordinatorMachine, fails_when_not_all_have_come) {
  Group group(fixed(2));
  group.hello(0);
  group.machine.run_segment(0, 4, group.now);
  group.pass(11);
  ASSERT_TRUE(group.has_task<GroupFailed>());
  EXPECT_EQ(std::get<GroupFailed>(group.machine.task()).code, exit_data);
}

TEST(WorkerMachine, ends_with_the_jobs_code_and_tells_the_coordinator) {
  WorkerMachine worker = worker_of();
  worker.received(Leave{4, "diverged"}, 1);
  const auto reports = actions<Report>(worker);
  EXPECT_TRUE(
      std::any_of(reports.begin(), reports.end(), [](const Report& is) { return std::holds_alternative<Left>(is.message); }));
  const auto* exit = std::get_if<Exit>(&worker.task());
  ASSERT_NE(exit, nullptr);
  EXPECT_EQ(exit->code, 4);
  EXPECT_TRUE(exit->told);
}

TEST(CoordinatorMachine, waits_for_the_right_process_once_a_wrong_one_has_come) {
  for (const bool comes : {false, true}) {
    CoordinatorMachine job({.workers = 1, .patience = 60});
    job.run_segment(0, 10, 0);
    job.turned_away(0, "another configuration", 1);
    if (comes) job.hello(0, process(0), "e", {.serial = 1, .process = process(0)}, 2);
    job.tick(1.5 + CoordinatorMachine::longest_doubt);
    const auto* failed = std::get_if<GroupFailed>(&job.task());
    EXPECT_EQ(failed == nullptr, comes);
    if (failed != nullptr) EXPECT_EQ(failed->code, exit_usage);
  }
}

TEST(WorkerMachine, a_worker_that_nobody_welcomes_ends_at_the_first_signal) {
  WorkerMachine worker({.patience = 60, .process = process(0)}, 0);
  worker.stop_requested();
  worker.tick(0.1);
  EXPECT_TRUE(worker.status(0).stop_wanted) << "who comes now is told so, and ends the whole job";
  EXPECT_FALSE(std::holds_alternative<Exit>(worker.task()));
  worker.tick(0.2 + WorkerMachine::longest_wish);
  ASSERT_TRUE(std::holds_alternative<Exit>(worker.task()));
  EXPECT_EQ(std::get<Exit>(worker.task()).code, exit_interrupted);
}

TEST(WorkerMachine, a_worker_whose_coordinator_is_gone_never_ends_with_0) {
  WorkerMachine worker = worker_of();
  worker.silent(true, 1);
  worker.tick(12);
  ASSERT_TRUE(std::holds_alternative<Exit>(worker.task()));
  EXPECT_EQ(std::get<Exit>(worker.task()).code, exit_data);
  EXPECT_TRUE(std::get<Exit>(worker.task()).alone);
}

// G. Messages are lost, doubled and late.

TEST(CoordinatorMachine, orders_again_what_has_not_come) {
  Group group(fixed(1));
  group.hello(0);
  group.begin(0, 4);
  ASSERT_EQ(group.sent<Begin>(0).size(), 1u);  // lost
  group.now += 2;
  group.says(0, group.status(0, Phase::idle, 0, 0));
  EXPECT_EQ(group.sent<Begin>(0).size(), 1u);
  group.says(0, group.status(0, Phase::running, 0, 1));
  group.now += 2;
  group.says(0, group.status(0, Phase::running, 0, 1));
  EXPECT_TRUE(group.sent<Begin>(0).empty());
}

TEST(CoordinatorMachine, asks_for_a_report_that_was_lost) {
  Group group(fixed(1));
  group.hello(0);
  group.begin(0, 4);
  group.says(0, group.status(0, Phase::finished, 0, 1));
  EXPECT_TRUE(group.sent<SayAgain>(0).empty()) << "the report may be on its way";
  group.now += 2;
  group.says(0, group.status(0, Phase::finished, 0, 1));
  EXPECT_EQ(group.sent<SayAgain>(0).size(), 1u);
  group.finishes(0, 1, 4);
  group.pass(0.1);
  ASSERT_TRUE(group.has_task<SegmentEnded>());
  EXPECT_EQ(std::get<SegmentEnded>(group.machine.task()).position, 4);
}

TEST(CoordinatorMachine, a_report_of_an_earlier_term_counts_for_nothing) {
  Group group(fixed(2));
  group.hello(0);
  group.hello(1);
  group.begin(0, 4);
  group.machine.silent(1, true, group.now);
  group.pass(0.1);
  ASSERT_TRUE(group.has_task<GoBack>());
  group.says(0, Finished{process(0), 0, 1, 4, ""});
  group.machine.task_done(group.now);
  group.machine.silent(1, false, group.now);
  for (const int rank : {0, 1}) group.says(rank, group.status(rank, Phase::idle, 1, 1));
  group.pass(0.1);
  ASSERT_TRUE(group.has_task<OpenSegment>()) << "all begin again";
}

TEST(CoordinatorMachine, an_older_status_changes_nothing) {
  Group group(fixed(1));
  group.hello(0);
  group.begin(0, 4);
  const Status old = group.status(0, Phase::idle, 0, 0);
  group.says(0, group.status(0, Phase::running, 0, 1));
  group.sent<Begin>(0);
  group.now += 5;
  group.says(0, old);
  EXPECT_TRUE(group.sent<Begin>(0).empty());
}

TEST(WorkerMachine, follows_an_order_once) {
  WorkerMachine worker = worker_of();
  const Begin begin{.term = 0, .segment = 1, .begin = 0, .end = 4};
  worker.received(begin, 1);
  ASSERT_TRUE(std::holds_alternative<RunSegment>(worker.task()));
  worker.task_taken();
  worker.received(begin, 1);
  EXPECT_EQ(worker.task().index(), 0u);
  worker.segment_ended(4, "");
  worker.received(begin, 2);
  EXPECT_EQ(worker.task().index(), 0u) << "doubled and late";
}

TEST(WorkerMachine, a_halt_that_comes_before_the_source_is_open_is_not_forgotten) {
  WorkerMachine worker = worker_of(Policy::free);
  worker.received(Begin{.term = 0, .segment = 1, .begin = 0, .end = 4}, 1);
  worker.received(Halt{.how = HaltHow::stop, .term = 0, .segment = 1}, 1);
  worker.task_taken();
  EXPECT_TRUE(actions<HaltSource>(worker).empty());
  worker.opened();
  EXPECT_EQ(actions<HaltSource>(worker).size(), 1u);
}

TEST(WorkerMachine, an_order_of_a_new_coordinator_replaces_what_an_earlier_one_has_ordered) {
  WorkerMachine worker = worker_of();
  worker.received(Begin{.term = 0, .segment = 7, .begin = 4, .end = 8}, 1);
  worker.task_taken();
  actions<Interrupt>(worker);
  worker.received(Begin{.term = 1LL << 32, .segment = 1, .begin = 4, .end = 8}, 2);
  EXPECT_EQ(actions<Interrupt>(worker).size(), 1u);
  worker.segment_interrupted();
  ASSERT_TRUE(std::holds_alternative<ForgetTerm>(worker.task()));
  worker.task_taken();
  ASSERT_TRUE(std::holds_alternative<RunSegment>(worker.task()));
  EXPECT_EQ(std::get<RunSegment>(worker.task()).begin.segment, 1);
}

/// Without a centre, who comes back begins with the weights of another, who is asked for them.
TEST(CoordinatorMachine, asks_another_for_the_weights_of_one_that_comes_back) {
  Group group({.policy = Policy::free, .workers = 2, .sums = true, .patience = 10, .total_steps = 100});
  group.hello(0);
  group.hello(1);
  group.machine.run_segment(0, 100, group.now);
  group.machine.task_done(group.now);
  group.pass(0.1);
  group.says(0, group.status(0, Phase::running, 0, 1));
  group.sent<GiveWeights>(0);
  group.hello(1, 1);
  group.now += 2;
  group.pass(0.1);
  EXPECT_EQ(group.sent<GiveWeights>(0).size(), 1u);
  group.sent<Begin>(1);
  group.says(0, Weights{process(0), 10});
  group.pass(0.2);
  const auto begun = group.sent<Begin>(1);
  ASSERT_EQ(begun.size(), 1u);
  EXPECT_EQ(begun[0].from, Source::weights);
}

TEST(WorkerMachine, has_no_weights_to_give_before_its_segment_has_begun) {
  WorkerMachine worker = worker_of(Policy::free);
  EXPECT_FALSE(worker.has_weights());
  worker.received(Begin{.term = 0, .segment = 1, .begin = 0, .end = 4}, 1);
  worker.task_taken();
  EXPECT_FALSE(worker.has_weights());
  worker.opened();
  EXPECT_TRUE(worker.has_weights());
}

TEST(CoordinatorMachine, a_round_does_not_wait_for_one_that_will_not_come_back) {
  GroupOptions options = fixed(2, WhenWorkerDies::proceed);
  options.centre = true;
  Group group(options);
  group.hello(0);
  group.hello(1);
  group.begin(0, 4);
  group.machine.take_actions();
  group.machine.gone(1, 0, group.now);
  group.pass(2);
  const Actions done = group.machine.take_actions();
  const auto farewells =
      std::count_if(done.begin(), done.end(), [](const Action& is) { return std::holds_alternative<Farewell>(is); });
  EXPECT_EQ(farewells, 1) << "the centre is told";
}

// Sums.

TEST(SumMachine, a_question_is_put_again_until_it_is_answered) {
  SumMachine sum("g");
  sum.meet(1, {0, 1, 2}, 0);
  sum.begin(0);
  ASSERT_EQ(sum.next(0), SumMachine::Task::add_up);
  sum.failed(1, 0);
  sum.meet(2, {0, 1}, 0);
  EXPECT_EQ(sum.next(0), SumMachine::Task::ask);
  EXPECT_EQ(sum.next(0.5), SumMachine::Task::none);
  EXPECT_EQ(sum.next(1.1), SumMachine::Task::ask);
  sum.answered(1, sum.question(), SumOutcome::lacking);
  EXPECT_EQ(sum.next(1.2), SumMachine::Task::add_up);
  EXPECT_TRUE(sum.added_up(2, 1.3));
}

TEST(SumMachine, says_nothing_to_a_member_whose_version_it_does_not_know) {
  SumMachine late("g");
  late.meet(1, {0, 1, 2}, 1);
  late.begin(0);
  late.next(0);
  const SumId question{"g", 1, 0, 2};
  EXPECT_EQ(late.asked(question), std::nullopt) << "its sum may still come about in version 1";
  EXPECT_TRUE(late.is_behind(question));
  EXPECT_TRUE(late.added_up(1, 0.1));
  late.meet(2, {0, 1}, 1);
  EXPECT_EQ(late.asked(question), SumOutcome::finished);
}

TEST(SumMachine, what_it_has_called_lacking_it_never_finishes_alone) {
  SumMachine sum("g");
  sum.meet(1, {0, 1, 2}, 1);
  sum.begin(0);
  sum.next(0);
  sum.meet(2, {0, 1}, 1);
  EXPECT_EQ(sum.asked({"g", 1, 0, 2}), SumOutcome::lacking);
  EXPECT_FALSE(sum.added_up(1, 0.2)) << "the arithmetic of version 1 ends after all";
}

TEST(SumMachine, a_newcomer_and_those_before_it_count_alike) {
  SumMachine old("g"), fresh("g");
  old.meet(1, {0}, 0);
  for (int i = 0; i < 3; ++i) {
    old.begin(i);
    old.next(i);
    ASSERT_TRUE(old.added_up(1, i));
  }
  old.meet(2, {0, 1}, 0);
  fresh.meet(2, {0, 1}, 1);
  old.begin(4);
  old.next(4);
  fresh.begin(4);
  fresh.next(4);
  EXPECT_EQ(old.question(), fresh.question());
}

TEST(SumMachine, complains_of_connections_that_fail_although_nobody_has_died) {
  SumMachine sum("g");
  sum.meet(1, {0, 1}, 0);
  sum.begin(0);
  sum.next(0);
  sum.failed(1, 0);
  EXPECT_EQ(sum.next(1), SumMachine::Task::none);
  EXPECT_EQ(sum.next(2.1), SumMachine::Task::complain);
  EXPECT_EQ(sum.next(2.2), SumMachine::Task::none);
  EXPECT_EQ(sum.next(4.2), SumMachine::Task::complain);
}

// Messages.

TEST(Messages, come_back_as_they_were_sent) {
  const Begin begin{Source::weights, 5, 6, 7, 8, 9, {0, 2, 3}, {{1, "tcp://a:1"}, {2, "tcp://b:2"}}};
  EXPECT_EQ(std::get<Begin>(decode(encode(begin))), begin);
  const Status status{1, process(3, 2), Phase::failed, -1, 1LL << 40, 12, true, true, 77};
  const auto again = std::get<Status>(decode(encode(status)));
  EXPECT_EQ(again.process, status.process);
  EXPECT_EQ(again.phase, Phase::failed);
  EXPECT_EQ(again.segment, 1LL << 40);
  EXPECT_EQ(again.version, 77);
  EXPECT_TRUE(again.holds && again.stop_wanted);
  const SumAnswered answered{4, {"means", 1, 2, 3}, SumOutcome::gone, 6, 0.5F};
  const auto answer = std::get<SumAnswered>(decode(encode(answered)));
  EXPECT_EQ(answer.sum, answered.sum);
  EXPECT_EQ(answer.outcome, SumOutcome::gone);
  EXPECT_EQ(answer.weight, 0.5F);
  const std::vector<Message> others = {Abort{1, 2},
                                       Halt{HaltHow::end_at, 1, 2, 3},
                                       Leave{130, "why"},
                                       Members{4, {1, 2}},
                                       Found{"k", "v"},
                                       GiveWeights{},
                                       SayAgain{},
                                       Finished{process(1), 1, 2, 3, "d"},
                                       Failed{process(1), 4, "s"},
                                       Weights{process(1), 5},
                                       Left{process(1)},
                                       Broken{3},
                                       Put{"k", "v"},
                                       Look{"k"},
                                       SumAsked{1, {"g", 1, 2, 3}}};
  for (const Message& message : others) EXPECT_EQ(decode(encode(message)).index(), message.index());
}

TEST(Messages, that_nobody_would_send_are_refused) {
  EXPECT_THROW(decode(""), MessageError);
  EXPECT_THROW(decode("\xff\xff\xff"), MessageError);
  std::string bytes = encode(Status{1, process(0), Phase::idle});
  std::uint64_t state = 1;
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string damaged = bytes;
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    damaged[(state >> 33) % damaged.size()] = static_cast<char>(state >> 55);
    try {
      decode(damaged);
    } catch (const MessageError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
}

}  // namespace membership_machines_test
