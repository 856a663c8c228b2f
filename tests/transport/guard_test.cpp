#include "transport/guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "transport/guard_fixture.h"

namespace rubato {
namespace transport_guard_test {

using test::GuardTest, test::patience_ms;
using testing::HasSubstr;

TEST_F(GuardTest, lets_the_right_token_through) {
  zmq::socket_t server = protected_socket(false);
  expect_only_the_good_peer(server, false);
  EXPECT_THAT(refusals_.wait_for(0), testing::IsEmpty());
}

TEST_F(GuardTest, lets_the_right_curve_key_through) {
  zmq::socket_t server = protected_socket(true);
  expect_only_the_good_peer(server, true);
  EXPECT_THAT(refusals_.wait_for(0), testing::IsEmpty());
}

TEST_F(GuardTest, refuses_another_token) {
  zmq::socket_t server = protected_socket(false);
  Credentials others = credentials_;
  others.token.back() = others.token.back() == '0' ? '1' : '0';
  zmq::socket_t wrong = peer(others, false);
  say(wrong, server, "bad");
  EXPECT_THAT(refusals_.wait_for(1), testing::ElementsAre("127.0.0.1: not the token of this job"));
  expect_only_the_good_peer(server, false);
}

TEST_F(GuardTest, refuses_parts_of_the_token) {
  zmq::socket_t server = protected_socket(false);
  std::vector<zmq::socket_t> wrong;
  for (const std::string& token : {std::string("x"), credentials_.token.substr(0, 63), credentials_.token + "0"}) {
    Credentials others = credentials_;
    others.token = token;
    wrong.push_back(peer(others, false));
    say(wrong.back(), server, "bad");
    EXPECT_EQ(refusals_.wait_for(wrong.size()).size(), wrong.size());
  }
  expect_only_the_good_peer(server, false);
}

TEST_F(GuardTest, refuses_another_user_name) {
  zmq::socket_t server = protected_socket(false);
  zmq::socket_t wrong = peer(credentials_, false);
  wrong.set(zmq::sockopt::plain_username, "somebody");
  say(wrong, server, "bad");
  EXPECT_EQ(refusals_.wait_for(1).size(), 1u);
  expect_only_the_good_peer(server, false);
}

TEST_F(GuardTest, refuses_another_curve_key) {
  zmq::socket_t server = protected_socket(true);
  Credentials others = make_credentials();
  others.server_public = credentials_.server_public;
  zmq::socket_t wrong = peer(others, true);
  say(wrong, server, "bad");
  EXPECT_THAT(refusals_.wait_for(1), testing::ElementsAre("127.0.0.1: not the key of this job"));
  expect_only_the_good_peer(server, true);
}

TEST_F(GuardTest, refuses_who_shows_nothing_where_a_socket_asks_for_nothing) {
  zmq::socket_t socket(context_, zmq::socket_type::pull);
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::zap_domain, "rubato");
  zmq::socket_t server = bound(std::move(socket));
  zmq::socket_t wrong = stranger();
  say(wrong, server, "bad");
  EXPECT_THAT(refusals_.wait_for(1), testing::ElementsAre(HasSubstr("mechanism NULL shows no credentials")));
  EXPECT_EQ(hear(server, zmq::recv_flags::dontwait), "nothing");
}

/// ZeroMQ itself turns away who speaks another mechanism, or a CURVE peer that takes us for another server; the guard is not
/// asked.
class MechanismTest : public GuardTest {
 protected:
  /// How the first handshake ends. Which kind of failure depends on which side hangs up first.
  std::uint16_t outcome(zmq::socket_t& server, zmq::socket_t& wrong) {
    const std::string events = "inproc://events";
    constexpr int failed = ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    zmq_socket_monitor(server.handle(), events.c_str(), failed | ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    zmq::socket_t monitor(context_, zmq::socket_type::pair);
    monitor.set(zmq::sockopt::linger, 0);
    monitor.set(zmq::sockopt::rcvtimeo, patience_ms);
    monitor.connect(events);
    say(wrong, server, "bad");
    const std::string event = hear(monitor);
    EXPECT_NE(event, "nothing");
    zmq_socket_monitor(server.handle(), nullptr, 0);
    std::uint16_t number = 0;
    std::memcpy(&number, event.data(), sizeof number);
    return number;
  }

  void expect_failure(zmq::socket_t& server, zmq::socket_t& wrong, bool curve) {
    EXPECT_NE(outcome(server, wrong), ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    expect_only_the_good_peer(server, curve);
  }

  void expect_nobody_gets_in_without_a_guard(bool curve) {
    guard_.reset();
    zmq::socket_t server = protected_socket(curve), good = peer(credentials_, curve);
    EXPECT_NE(outcome(server, good), ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    EXPECT_EQ(hear(server, zmq::recv_flags::dontwait), "nothing");
  }
};

TEST_F(MechanismTest, a_token_where_no_guard_is) {
  expect_nobody_gets_in_without_a_guard(false);
}

TEST_F(MechanismTest, a_key_where_no_guard_is) {
  expect_nobody_gets_in_without_a_guard(true);
}

TEST_F(MechanismTest, no_credentials_where_a_token_is_asked_for) {
  zmq::socket_t server = protected_socket(false), wrong = stranger();
  expect_failure(server, wrong, false);
}

TEST_F(MechanismTest, no_credentials_where_a_key_is_asked_for) {
  zmq::socket_t server = protected_socket(true), wrong = stranger();
  expect_failure(server, wrong, true);
}

TEST_F(MechanismTest, a_token_where_a_key_is_asked_for) {
  zmq::socket_t server = protected_socket(true), wrong = peer(credentials_, false);
  expect_failure(server, wrong, true);
}

TEST_F(MechanismTest, a_curve_peer_that_takes_us_for_another_server) {
  Credentials others = credentials_;
  others.server_public = make_credentials().server_public;
  zmq::socket_t server = protected_socket(true), wrong = peer(others, true);
  expect_failure(server, wrong, true);
}

class QuestionTest : public GuardTest {
 protected:
  /// What the guard answers to frames that no ZeroMQ would send.
  std::vector<std::string> answer_to(const std::vector<std::string>& frames) {
    zmq::socket_t asker(context_, zmq::socket_type::req);
    asker.set(zmq::sockopt::linger, 0);
    asker.set(zmq::sockopt::rcvtimeo, patience_ms);
    asker.connect("inproc://zeromq.zap.01");
    for (std::size_t i = 0; i < frames.size(); ++i) {
      asker.send(zmq::buffer(frames[i]), i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
    std::vector<std::string> answer{hear(asker)};
    while (asker.get(zmq::sockopt::rcvmore)) answer.push_back(hear(asker));
    return answer;
  }

  std::string status_of(const std::vector<std::string>& frames) {
    const std::vector<std::string> answer = answer_to(frames);
    return answer.size() == 6 ? answer[2] : "no answer";
  }
};

TEST_F(QuestionTest, malformed_ones_are_refused_and_the_next_are_answered) {
  const std::string token = credentials_.token;
  for (const std::vector<std::string>& frames :
       std::vector<std::vector<std::string>>{{""},
                                             {"1.0"},
                                             {"1.0", "id", "rubato", "127.0.0.1", ""},
                                             {"2.0", "id", "rubato", "127.0.0.1", "", "PLAIN", "rubato", token},
                                             {"1.0", "id", "rubato", "127.0.0.1", "", "PLAIN", token},
                                             {"1.0", "id", "rubato", "127.0.0.1", "", "PLAIN", "rubato", token, ""},
                                             {"1.0", "id", "rubato", "127.0.0.1", "", "CURVE"},
                                             {"1.0", "id", "rubato", "127.0.0.1", "", "CURVE", "", ""}}) {
    EXPECT_EQ(status_of(frames), "500");
  }
  EXPECT_EQ(status_of({"1.0", "id", "rubato", "127.0.0.1", "", "CURVE", credentials_.client_public}), "400");
  EXPECT_EQ(status_of({"1.0", "id", "rubato", "127.0.0.1", "", "GSSAPI", token}), "400");
  EXPECT_THAT(answer_to({"1.0", "id", "rubato", "127.0.0.1", "", "PLAIN", "rubato", token}),
              testing::ElementsAre("1.0", "id", "200", "OK", "rubato", ""));
  EXPECT_EQ(refusals_.wait_for(10).size(), 10u);
}

TEST_F(QuestionTest, those_without_an_envelope_are_dropped) {
  zmq::socket_t asker(context_, zmq::socket_type::dealer);
  asker.set(zmq::sockopt::linger, 0);
  asker.connect("inproc://zeromq.zap.01");
  asker.send(zmq::str_buffer("no envelope"), zmq::send_flags::none);
  zmq::socket_t server = protected_socket(false);
  expect_only_the_good_peer(server, false);
}

TEST_F(GuardTest, ends_and_can_be_followed_by_another) {
  for (int i = 0; i < 20; ++i) {
    guard_.reset();
    guard_ = started();
  }
  zmq::socket_t server = protected_socket(false);
  expect_only_the_good_peer(server, false);
}

TEST_F(GuardTest, ends_when_its_context_has_been_shut_down) {
  context_.shutdown();
  guard_.reset();
}

TEST(Guard, refuses_credentials_without_a_key) {
  zmq::context_t context;
  EXPECT_ANY_THROW(Guard(context, Credentials(), nullptr));
}

}  // namespace transport_guard_test
}  // namespace rubato
