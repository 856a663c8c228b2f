#include "rubato/context/runtime.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>

#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"
#include "support/lab.h"

namespace rubato {
namespace runtimes_runtime_test {

struct Number final : Message {
  int value = 0;
  std::size_t bytes() const override { return sizeof value; }
};

Number number(int value) {
  Number message;
  message.value = value;
  return message;
}

/// Every statement about Context holds on threads and in virtual time.
class RuntimeTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Runtime> make(RuntimeOptions options = {}) {
    return GetParam() == std::string("threads") ? make_thread_runtime(options) : make_simulator({.hosts = 3}, options);
  }
};

TEST_P(RuntimeTest, messages_arrive_once_and_in_order) {
  const Channel<Number> channel{{"numbers", 2}};
  std::vector<int> got;
  make()->run({{.name = "sender",
                .run =
                    [&](Context& me) {
                      for (int i = 0; i < 20; ++i) send(me, channel, number(i));
                    }},
               {.name = "receiver",
                .run =
                    [&](Context& me) {
                      for (int i = 0; i < 20; ++i) got.push_back(receive(me, channel).value);
                    },
                .device = 1}});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(got.at(i), i);
}

TEST_P(RuntimeTest, each_message_reaches_exactly_one_of_several_receivers) {
  const Channel<Number> channel{{"numbers", 4}};
  std::atomic<int> sum{0};
  const auto receiver = [&](Context& me) {
    for (int value = receive(me, channel).value; value > 0; value = receive(me, channel).value) sum += value;
  };
  make()->run({{.name = "a", .run = receiver}, {.name = "b", .run = receiver}, {.name = "sender", .run = [&](Context& me) {
                                                                                  for (int i = 1; i <= 100; ++i)
                                                                                    send(me, channel, number(i));
                                                                                  for (int i = 0; i < 2; ++i)
                                                                                    send(me, channel, number(0));
                                                                                }}});
  EXPECT_EQ(sum, 5050);
}

TEST_P(RuntimeTest, a_deadlock_is_found_and_explained) {
  const Channel<Number> questions{{"questions", 1}}, answers{{"answers", 1}};
  const auto runtime = make();
  try {
    runtime->run({{.name = "a", .run = [&](Context& me) { receive(me, questions); }},
                  {.name = "b",
                   .run =
                       [&](Context& me) {
                         for (int i = 0; i < 2; ++i) send(me, answers, number(i));
                       },
                   .device = 1},
                  {.name = "done", .run = [&](Context& me) { me.sleep(1e-3); }}});
    FAIL() << "it came back";
  } catch (const std::logic_error& error) {
    EXPECT_STREQ(error.what(),
                 "deadlock: every role waits for another: a waits for a message in 'questions'; b waits for room in 'answers'");
  }
}

TEST_P(RuntimeTest, a_full_channel_holds_its_sender) {
  const Channel<Number> channel{{"narrow", 1}}, go{{"go", 1}};
  std::atomic<int> sent{0};
  int sent_before_first_receive = 0;
  make()->run({{.name = "sender",
                .run =
                    [&](Context& me) {
                      for (int i = 0; i < 3; ++i) {
                        send(me, channel, number(i));
                        ++sent;
                      }
                    }},
               {.name = "receiver", .run = [&](Context& me) {
                  me.sleep(0.02);
                  sent_before_first_receive = sent;
                  for (int i = 0; i < 3; ++i) receive(me, channel);
                }}});
  EXPECT_LE(sent_before_first_receive, 1);
  EXPECT_EQ(sent, 3);
}

TEST_P(RuntimeTest, what_is_in_a_channel_stays_for_the_next_segment) {
  const auto runtime = make();
  const Channel<Number> channel{{"kept", 3}};
  int got = 0;
  runtime->run({{.name = "sender", .run = [&](Context& me) { send(me, channel, number(7)); }}});
  runtime->run({{.name = "receiver", .run = [&](Context& me) { got = receive(me, channel).value; }}});
  EXPECT_EQ(got, 7);
}

TEST_P(RuntimeTest, a_role_that_fails_stops_the_others_and_its_exception_comes_out) {
  const Channel<Number> never{{"never", 1}};
  const auto runtime = make();
  const auto waits = [&](Context& me) { receive(me, never); };
  EXPECT_THROW(
      runtime->run({{.name = "waits", .run = waits},
                    {.name = "sleeps", .run = [](Context& me) { me.sleep(1000); }},
                    {.name = "fails",
                     .run = [](Context& me) { me.compute(ComputeKind::other, 0, 0.001, [] { throw DivergedError("no"); }); }}}),
      DivergedError);
}

TEST_P(RuntimeTest, random_streams_depend_on_seed_and_role_only) {
  const auto draw = [&](std::uint64_t seed, const char* name) {
    std::uint64_t value = 0;
    make({.seed = seed})->run({{.name = name, .run = [&](Context& me) { value = me.random()(); }}});
    return value;
  };
  EXPECT_EQ(draw(1, "a"), draw(1, "a"));
  EXPECT_NE(draw(1, "a"), draw(2, "a"));
  EXPECT_NE(draw(1, "a"), draw(1, "b"));
}

std::vector<const char*> runtimes() {
  return test::has_simulator() ? std::vector<const char*>{"threads", "simulator"} : std::vector<const char*>{"threads"};
}
INSTANTIATE_TEST_SUITE_P(All, RuntimeTest, ::testing::ValuesIn(runtimes()), [](const auto& info) { return info.param; });

TEST(RuntimeOptions, reads_delays_and_refuses_others) {
  const InjectedDelay delay = parse_delay("ddg-1:2-5.5");
  EXPECT_EQ(delay.role, "ddg-1");
  EXPECT_EQ(delay.low_ms, 2);
  EXPECT_EQ(delay.high_ms, 5.5);
  EXPECT_EQ(parse_delay("worker-0:7").high_ms, 7);
  for (const char* wrong : {"", "worker-0", ":5", "a:", "a:-1", "a:5-2", "a:x"}) {
    EXPECT_THROW(parse_delay(wrong), UsageError) << wrong;
  }
}

}  // namespace runtimes_runtime_test
}  // namespace rubato
