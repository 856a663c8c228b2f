#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

#include "rubato/runtimes/processes.h"

namespace rubato {
namespace runtimes_process_runtime_test {

/// A message that crosses processes.
struct Number final : Message {
  std::int64_t value = 0;
  std::size_t bytes() const override { return sizeof value; }
  Packed pack() const override {
    Packed packed;
    packed.numbers = {value};
    return packed;
  }
  static Number unpack(Unpacker& unpacker) {
    Number number;
    number.value = unpacker.number();
    return number;
  }
};

Number number(std::int64_t value) {
  Number n;
  n.value = value;
  return n;
}

struct Local final : Message {
  std::size_t bytes() const override { return 0; }
};

Packed packed(std::int64_t value) {
  return number(value).pack();
}

/// Remembers what a runtime says to its neighbours.
class Recorded final : public Neighbours {
 public:
  void listens(const std::string& channel) override { note("listens " + channel); }
  void send(int peer, const std::string& channel, std::int64_t, Packed content) override {
    note("to " + std::to_string(peer) + " " + channel + " " + std::to_string(content.numbers.at(0)));
  }
  void taken(int peer, const std::string& channel) override { note("taken " + std::to_string(peer) + " " + channel); }
  void refuse(int peer, const std::string&, const std::string& why) override {
    note("refused " + std::to_string(peer) + " " + why);
  }
  std::shared_ptr<const Summable> all_reduce(const GroupSpec&, int, std::unique_ptr<Summable>) override { return nullptr; }

  std::vector<std::string> said() const {
    const std::lock_guard lock(mutex_);
    return said_;
  }

 private:
  void note(std::string what) {
    const std::lock_guard lock(mutex_);
    said_.push_back(std::move(what));
  }
  mutable std::mutex mutex_;
  std::vector<std::string> said_;
};

const Channel<Number> wide{{"wide", 1 << 20}}, narrow{{"narrow", 1}}, answers{{"answers", 1 << 20, true}};

Role role(std::function<void(Context&)> run) {
  return {.name = "role", .run = std::move(run)};
}

struct ProcessRuntimeTest : testing::Test {
  Recorded neighbours;
  std::unique_ptr<ProcessRuntime> runtime = make_process_runtime({}, neighbours, 0.1);
};

TEST_F(ProcessRuntimeTest, messages_wait_until_their_channel_is_found) {
  runtime->run({role([](Context& me) {
    send(me, wide, number(1));
    send(me, wide, number(2));
  })});
  EXPECT_TRUE(neighbours.said().empty());
  runtime->located("wide", 4);
  EXPECT_EQ(neighbours.said(), (std::vector<std::string>{"to 4 wide 1", "to 4 wide 2"}));
}

TEST_F(ProcessRuntimeTest, what_is_received_here_stays_here) {
  runtime->run({role([this](Context& me) {
    send(me, wide, number(5));
    EXPECT_EQ(receive(me, wide).value, 5);
    runtime->located("wide", 4);  // somebody else's mistake
    send(me, wide, number(6));
    EXPECT_EQ(receive(me, wide).value, 6);
  })});
  EXPECT_EQ(neighbours.said(), std::vector<std::string>{"listens wide"});
}

TEST_F(ProcessRuntimeTest, messages_of_others_are_delivered_and_acknowledged_where_room_is_short) {
  runtime->deliver(3, "narrow", 0, packed(8));
  runtime->run({role([](Context& me) { EXPECT_EQ(receive(me, narrow).value, 8); })});
  EXPECT_EQ(neighbours.said(), (std::vector<std::string>{"listens narrow", "taken 3 narrow"}));
}

TEST_F(ProcessRuntimeTest, senders_wait_for_room_in_the_other_process) {
  runtime->located("narrow", 2);
  std::atomic<int> sent{0};
  std::thread other([&] {
    while (sent < 1) std::this_thread::yield();
    runtime->taken("narrow");
  });
  runtime->run({role([&](Context& me) {
    send(me, narrow, number(1));
    sent = 1;
    send(me, narrow, number(2));
    sent = 2;
  })});
  other.join();
  EXPECT_EQ(neighbours.said().size(), 2u);
}

TEST_F(ProcessRuntimeTest, what_goes_to_the_lost_is_dropped_until_they_are_found_again) {
  runtime->located("narrow", 2);
  runtime->lost(2);
  runtime->run({role([&](Context& me) {
    for (int i = 0; i < 5; ++i) send(me, narrow, number(i));
  })});
  EXPECT_TRUE(neighbours.said().empty());
  runtime->located("narrow", 2);
  runtime->run({role([&](Context& me) { send(me, narrow, number(9)); })});
  EXPECT_EQ(neighbours.said(), std::vector<std::string>{"to 2 narrow 9"});
}

TEST_F(ProcessRuntimeTest, who_can_go_on_alone_does_not_wait_for_the_lost) {
  runtime->set_away(true);
  runtime->run({role([](Context& me) {
    EXPECT_FALSE(receive_unless_lost(me, answers));
    EXPECT_THROW(receive(me, answers), PeerLost);
  })});
  EXPECT_EQ(runtime->waited().in_vain, 2);
}

TEST_F(ProcessRuntimeTest, an_answer_that_died_with_its_sender_is_not_waited_for_forever) {
  runtime->set_away(true);
  runtime->set_away(false);  // back again, but it knows nothing of what was asked before
  runtime->run({role([](Context& me) { EXPECT_FALSE(receive_unless_lost(me, answers)); })});
}

TEST_F(ProcessRuntimeTest, answers_come_through_while_the_peer_is_there) {
  std::thread other([&] { runtime->deliver(-1, "answers", 0, packed(3)); });
  runtime->run({role([](Context& me) { EXPECT_EQ(receive_unless_lost(me, answers)->value, 3); })});
  other.join();
  EXPECT_EQ(runtime->waited().in_vain, 0);
}

TEST_F(ProcessRuntimeTest, a_message_that_does_not_fit_is_refused_and_the_next_one_taken) {
  Channel<Number> even{{"even", 1 << 20}};
  even.fits = [](const Number& n) { return n.value % 2 == 0; };
  runtime->deliver(1, "even", 0, packed(3));
  runtime->deliver(1, "even", 0, {});
  runtime->deliver(2, "even", 0, packed(4));
  runtime->run({role([&](Context& me) { EXPECT_EQ(receive(me, even).value, 4); })});
  EXPECT_EQ(neighbours.said(),
            (std::vector<std::string>{"listens even", "refused 1 it does not fit the model", "refused 1 a number is missing"}));
}

TEST_F(ProcessRuntimeTest, a_message_that_stays_in_its_process_is_refused_when_it_comes_from_another) {
  const Channel<Local> local{{"local", 1 << 20}};
  runtime->deliver(1, "local", 0, packed(3));
  runtime->run({role([&](Context& me) {
    send(me, local, Local{});
    receive(me, local);
  })});
  EXPECT_EQ(neighbours.said().back(), "refused 1 no message of this channel crosses processes");
}

TEST_F(ProcessRuntimeTest, an_interrupt_ends_every_role_and_the_next_segment_begins_anew) {
  std::thread other([&] { runtime->interrupt(); });
  EXPECT_THROW(runtime->run({role([](Context& me) { receive(me, wide); })}), Stopped);
  other.join();
  runtime->deliver(1, "wide", 0, packed(1));
  runtime->clear();
  runtime->deliver(1, "wide", 0, packed(2));
  runtime->run({role([](Context& me) { EXPECT_EQ(receive(me, wide).value, 2); })});
}

}  // namespace runtimes_process_runtime_test
}  // namespace rubato
