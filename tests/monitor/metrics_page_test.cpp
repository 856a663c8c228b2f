#include "rubato/monitor/metrics_page.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "rubato/core/error.h"

namespace rubato {
namespace monitor_metrics_page_test {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* here = "127.0.0.1";

/// A socket that says whatever it likes.
class RawClient {
 public:
  explicit RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(static_cast<std::uint16_t>(port)), .sin_addr = {}, .sin_zero = {}};
    ::inet_pton(AF_INET, here, &to.sin_addr);
    connected_ = ::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  }
  ~RawClient() { ::close(socket_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }
  bool say(const std::string& text) const {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  void end_of_speech() const { ::shutdown(socket_, SHUT_WR); }
  /// Everything until the other side ends the connection.
  std::string hear() const {
    std::string all;
    char part[4096];
    for (ssize_t got = 0; (got = ::recv(socket_, part, sizeof part, 0)) > 0;) all.append(part, static_cast<std::size_t>(got));
    return all;
  }

 private:
  int socket_;
  bool connected_ = false;
};

struct Answer {
  int status = 0;  ///< 0: none
  std::string headers, body;
};

Answer answer_of(const RawClient& client) {
  const std::string all = client.hear();
  const std::size_t end = all.find("\r\n\r\n");
  if (end == std::string::npos || !all.starts_with("HTTP/1.1 ")) return {};
  return {std::stoi(all.substr(9)), all.substr(0, end), all.substr(end + 4)};
}

Answer ask(int port, const std::string& path, const std::string& more_headers = "", const std::string& method = "GET") {
  const RawClient client(port);
  if (!client.connected()) return {};
  client.say(method + " " + path + " HTTP/1.1\r\nHost: here\r\n" + more_headers + "\r\n");
  return answer_of(client);
}

TEST(MetricsPage, answers_with_the_text_of_the_moment) {
  std::atomic<int> asked = 0;
  const MetricsPage page(here, 0, [&] { return "rubato_asked_total " + std::to_string(++asked) + "\n"; });
  ASSERT_GT(page.port(), 0);
  for (int i = 1; i <= 3; ++i) {
    const Answer answer = ask(page.port(), i == 1 ? "/metrics" : i == 2 ? "/" : "/metrics?of=all");
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "rubato_asked_total " + std::to_string(i) + "\n");
    EXPECT_THAT(answer.headers, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  }
}

TEST(MetricsPage, answers_old_and_terse_clients) {
  const MetricsPage page(here, 0, [] { return "text"; });
  const RawClient old(page.port());
  old.say("GET /metrics HTTP/1.0\r\n\r\n");
  old.end_of_speech();
  EXPECT_EQ(answer_of(old).body, "text");
  const Answer head = ask(page.port(), "/metrics", "", "HEAD");
  EXPECT_EQ(head.status, 200);
  EXPECT_THAT(head.headers, HasSubstr("Content-Length: 4"));
  EXPECT_EQ(head.body, "");
}

TEST(MetricsPage, knows_no_other_path_and_no_other_method) {
  const MetricsPage page(here, 0, [] { return "text"; });
  for (const char* path : {"/metric", "/metrics/", "/../etc/passwd"}) EXPECT_EQ(ask(page.port(), path).status, 404) << path;
  EXPECT_EQ(ask(page.port(), "/metrics", "", "DELETE").status, 404);
  const RawClient client(page.port());
  client.say("POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(100));
  client.say("x=1");
  EXPECT_EQ(answer_of(client).status, 404);
}

TEST(MetricsPage, ranges_do_not_multiply_the_text) {
  const MetricsPage page(here, 0, [] { return "0123456789"; });
  std::string ranges = "Range: bytes=0-9";
  for (int i = 0; i < 1000; ++i) ranges += ",0-9";
  for (const std::string& range : {ranges, std::string("Range: bytes=9-0"), std::string("Range: bytes=99999999999999999999-")}) {
    const Answer answer = ask(page.port(), "/metrics", range + "\r\n");
    EXPECT_EQ(answer.status, 200) << range;
    EXPECT_EQ(answer.body, "0123456789") << range;
  }
}

void expect_refused(const std::string& address, int port) {
  try {
    const MetricsPage page(address, port, [] { return ""; });
    ADD_FAILURE() << address << ":" << port << " was taken";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(address + ":" + std::to_string(port)), Not(HasSubstr("\n"))));
  }
}

TEST(MetricsPage, an_address_that_cannot_be_had_is_refused_by_name) {
  const MetricsPage page(here, 0, [] { return "first"; });
  expect_refused(here, page.port());
  expect_refused("0.0.0.0", page.port());
  expect_refused("203.0.113.7", 0);  // of no machine
  expect_refused("no.such.name.invalid", 0);
  expect_refused("", 0);
  expect_refused(here, 65536);
  expect_refused(here, -1);
  EXPECT_EQ(ask(page.port(), "/metrics").body, "first");
}

TEST(MetricsPage, addresses_may_be_names) {
  const MetricsPage page("localhost", 0, [] { return "text"; });
  EXPECT_GT(page.port(), 0);
}

TEST(MetricsPage, a_port_is_free_again_as_soon_as_its_page_has_gone) {
  auto page = std::make_unique<MetricsPage>(here, 0, [] { return "first"; });
  const int port = page->port();
  const RawClient open(port);
  ASSERT_EQ(ask(port, "/").body, "first");
  page.reset();
  EXPECT_FALSE(RawClient(port).connected());
  page = std::make_unique<MetricsPage>(here, port, [] { return "second"; });
  EXPECT_EQ(ask(port, "/").body, "second");
}

TEST(MetricsPage, many_connections_are_all_answered) {
  const MetricsPage page(here, 0, [] { return std::string(100'000, 'x'); });
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
      clients.emplace_back([&] {
        for (int k = 0; k < 50; ++k) good += ask(page.port(), "/metrics").body.size() == 100'000;
      });
    }
  }
  EXPECT_EQ(good, 200);
}

TEST(MetricsPage, garbage_is_dropped_and_hurts_nobody) {
  const MetricsPage page(here, 0, [] { return "fine"; });
  for (const std::string& garbage : {std::string("\0\xff\r\n\r\n", 6), std::string("GET\r\n\r\n"), std::string(1000, '\n'),
                                     std::string("GET /metrics HTTP/9\r\n\r\n")}) {
    const RawClient client(page.port());
    EXPECT_TRUE(client.say(garbage));
    EXPECT_THAT(client.hear(), Not(HasSubstr("200 OK"))) << garbage;
  }
  { const RawClient silent(page.port()); }
  EXPECT_EQ(ask(page.port(), "/metrics").body, "fine");
}

/// Says `begin`, then `part` again and again: how many bytes until it is cut off, 256 MB at most.
std::size_t taken(int port, const std::string& begin, const std::string& part) {
  const RawClient client(port);
  client.say(begin);
  std::size_t said = 0;
  while (said < 256 << 20 && client.say(part)) said += part.size();
  return said;
}

TEST(MetricsPage, requests_without_end_are_cut_off) {
  const MetricsPage page(here, 0, [] { return "fine"; });
  const std::size_t much = 32 << 20;  // the kernel takes some megabytes before anybody looks
  const std::string part(1 << 16, 'x');
  EXPECT_LT(taken(page.port(), "", part), much) << "a line";
  EXPECT_LT(taken(page.port(), "GET /metrics HTTP/1.1\r\nHost: here\r\nX: ", part), much) << "a header";
  EXPECT_LT(taken(page.port(), "GET /metrics HTTP/1.1\r\nHost: here\r\n", "X: " + std::string(4000, 'x') + "\r\n"), much)
      << "long headers";
  EXPECT_LT(taken(page.port(), "GET /metrics HTTP/1.1\r\nHost: here\r\n", "X: y\r\n"), much) << "short headers";
  for (const char* method : {"GET", "POST"}) {
    const std::string begin = std::string(method) + " /metrics HTTP/1.1\r\nHost: here\r\n";
    EXPECT_LT(taken(page.port(), begin + "Content-Length: 999999999999\r\n\r\n", part), much) << method << ", a body";
    EXPECT_LT(taken(page.port(), begin + "Transfer-Encoding: chunked\r\n\r\n", "10\r\n0123456789abcdef\r\n"), much)
        << method << ", a body in chunks";
  }
  EXPECT_EQ(ask(page.port(), "/metrics").body, "fine");
}

TEST(MetricsPage, clients_that_say_nothing_hold_up_nobody) {
  const MetricsPage page(here, 0, [] { return "fine"; });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(std::make_unique<RawClient>(page.port()));
  clients[0]->say("GET /met");
  auto begin = Clock::now();
  EXPECT_EQ(ask(page.port(), "/metrics").body, "fine");
  EXPECT_LT(Clock::now() - begin, milliseconds(2900)) << "those who hold it up are cut off after 3 s";
  for (int i = 0; i < 60; ++i) clients.push_back(std::make_unique<RawClient>(page.port()));  // more than it has places
  begin = Clock::now();
  EXPECT_EQ(ask(page.port(), "/metrics").body, "fine") << "after those before it were cut off";
  EXPECT_LT(Clock::now() - begin, seconds(15));
}

TEST(MetricsPage, a_client_that_drips_is_cut_off) {
  const MetricsPage page(here, 0, [] { return "fine"; });
  const RawClient client(page.port());
  client.say("GET /metrics HTTP/1.1\r\nX: ");
  const auto begin = Clock::now();
  while (client.say("x") && Clock::now() - begin < seconds(20)) std::this_thread::sleep_for(milliseconds(100));
  EXPECT_LT(Clock::now() - begin, seconds(10));
}

TEST(MetricsPage, a_client_that_does_not_listen_is_cut_off_and_holds_up_nobody) {
  const std::size_t much = 32 << 20;  // more than the kernel keeps
  std::atomic<bool> long_text = true;
  const MetricsPage page(here, 0, [&] { return std::string(long_text ? much : 4, 'x'); });
  const RawClient client(page.port());
  client.say("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
  std::this_thread::sleep_for(seconds(1));
  long_text = false;
  EXPECT_EQ(ask(page.port(), "/metrics").body, "xxxx");
  std::this_thread::sleep_for(seconds(5));
  EXPECT_LT(client.hear().size(), much);
}

TEST(MetricsPage, nobody_holds_up_its_end) {
  auto page = std::make_unique<MetricsPage>(here, 0, [] { return std::string(32 << 20, 'x'); });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 40; ++i) clients.push_back(std::make_unique<RawClient>(page->port()));
  clients[0]->say("GET /met");
  const RawClient deaf(page->port());
  deaf.say("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
  const std::jthread drip([port = page->port()](const std::stop_token& stop) {
    const RawClient client(port);
    while (!stop.stop_requested() && client.say("x")) std::this_thread::sleep_for(milliseconds(10));
  });
  std::this_thread::sleep_for(milliseconds(500));
  const auto begin = Clock::now();
  page.reset();
  EXPECT_LT(Clock::now() - begin, milliseconds(2900)) << "it does not wait until they are cut off";
  for (const auto& client : clients) EXPECT_EQ(client->hear(), "");
}

TEST(MetricsPage, a_text_that_fails_is_an_error_of_that_request_only) {
  int asked = 0;
  const MetricsPage page(here, 0, [&]() -> std::string {
    switch (++asked) {
      case 1:
        throw DataError("not now");
      case 2:
        throw 2;
      default:
        return "fine";
    }
  });
  for (int i = 0; i < 2; ++i) {
    const Answer answer = ask(page.port(), "/metrics");
    EXPECT_EQ(answer.status, 500);
    EXPECT_THAT(answer.headers + answer.body, Not(HasSubstr("not now"))) << "strangers are not told why";
  }
  EXPECT_EQ(ask(page.port(), "/metrics").body, "fine");
}

}  // namespace monitor_metrics_page_test
}  // namespace rubato
