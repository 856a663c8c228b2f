#include "train/metrics_page.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "rubato/core/error.h"

namespace rubato {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* here = "127.0.0.1";

/// A socket that says whatever it likes.
class RawClient {
 public:
  explicit RawClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(static_cast<std::uint16_t>(port)), .sin_addr = {}, .sin_zero = {}};
    ::inet_pton(AF_INET, here, &to.sin_addr);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  }
  ~RawClient() { ::close(socket_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool say(const std::string& text) const {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  /// Everything until the other side ends the connection.
  std::string hear() const {
    std::string all;
    char part[4096];
    for (ssize_t got = 0; (got = ::recv(socket_, part, sizeof part, 0)) > 0;) all.append(part, static_cast<std::size_t>(got));
    return all;
  }

 private:
  int socket_;
};

TEST(MetricsPage, answers_with_the_text_of_the_moment) {
  std::atomic<int> asked = 0;
  const MetricsPage page(here, 0, [&] { return "rubato_asked_total " + std::to_string(++asked) + "\n"; });
  ASSERT_GT(page.port(), 0);
  httplib::Client client(here, page.port());
  for (int i = 1; i <= 3; ++i) {
    const auto answer = client.Get(i == 2 ? "/" : "/metrics");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "rubato_asked_total " + std::to_string(i) + "\n");
    EXPECT_THAT(answer->get_header_value("Content-Type"), HasSubstr("text/plain; version=0.0.4"));
  }
}

TEST(MetricsPage, knows_no_other_path_and_no_other_method) {
  const MetricsPage page(here, 0, [] { return "text"; });
  httplib::Client client(here, page.port());
  for (const char* path : {"/metric", "/metrics/", "/../etc/passwd"}) {
    const auto answer = client.Get(path);
    ASSERT_TRUE(answer) << path;
    EXPECT_EQ(answer->status, 404) << path;
  }
  const auto posted = client.Post("/metrics", "x=1", "text/plain");
  ASSERT_TRUE(posted);
  EXPECT_EQ(posted->status, 404);
}

TEST(MetricsPage, ranges_do_not_multiply_the_text) {
  const MetricsPage page(here, 0, [] { return "0123456789"; });
  httplib::Client client(here, page.port());
  const auto answer = client.Get("/metrics", {{"Range", "bytes=0-9,0-9,0-9,0-9"}});
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "0123456789");
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
  expect_refused("203.0.113.7", 0);  // of no machine
  expect_refused("", 0);
  expect_refused(here, 65536);
  expect_refused(here, -1);
  EXPECT_EQ(httplib::Client(here, page.port()).Get("/metrics")->body, "first");
}

TEST(MetricsPage, a_port_is_free_again_as_soon_as_its_page_has_gone) {
  auto page = std::make_unique<MetricsPage>(here, 0, [] { return "first"; });
  const int port = page->port();
  ASSERT_TRUE(httplib::Client(here, port).Get("/"));
  page.reset();
  EXPECT_FALSE(httplib::Client(here, port).Get("/"));
  page = std::make_unique<MetricsPage>(here, port, [] { return "second"; });
  EXPECT_EQ(httplib::Client(here, port).Get("/")->body, "second");
}

TEST(MetricsPage, many_connections_are_all_answered) {
  const MetricsPage page(here, 0, [] { return std::string(100'000, 'x'); });
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> clients;
    for (int i = 0; i < 4; ++i) {
      clients.emplace_back([&] {
        for (int k = 0; k < 50; ++k) {
          const auto answer = httplib::Client(here, page.port()).Get("/metrics");
          if (answer && answer->body.size() == 100'000) ++good;
        }
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
  EXPECT_EQ(httplib::Client(here, page.port()).Get("/metrics")->body, "fine");
}

TEST(MetricsPage, a_line_without_end_is_cut_off) {
  const MetricsPage page(here, 0, [] { return "fine"; });
  const RawClient client(page.port());
  const std::string part(1 << 16, 'x');
  int said = 0;
  while (said < 4096 && client.say(part)) ++said;
  EXPECT_LT(said, 4096) << "256 MB of one line were taken";
  EXPECT_EQ(httplib::Client(here, page.port()).Get("/metrics")->body, "fine");
}

TEST(MetricsPage, headers_without_end_are_cut_off) {
  const MetricsPage page(here, 0, [] { return "fine"; });
  const RawClient client(page.port());
  client.say("GET /metrics HTTP/1.1\r\n");
  const std::string part = "X: " + std::string(4000, 'x') + "\r\n";
  int said = 0;
  while (said < 50'000 && client.say(part)) ++said;
  EXPECT_LT(said, 50'000);
}

TEST(MetricsPage, clients_that_say_nothing_do_not_hold_up_its_end) {
  auto page = std::make_unique<MetricsPage>(here, 0, [] { return "fine"; });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 40; ++i) clients.push_back(std::make_unique<RawClient>(page->port()));
  clients[0]->say("GET /met");
  const auto begin = std::chrono::steady_clock::now();
  page.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << "it waited for each of them";
  for (const auto& client : clients) EXPECT_EQ(client->hear(), "");
}

TEST(MetricsPage, a_text_that_fails_is_an_error_of_that_request_only) {
  bool fail = true;
  const MetricsPage page(here, 0, [&]() -> std::string {
    if (std::exchange(fail, false)) throw DataError("not now");
    return "fine";
  });
  httplib::Client client(here, page.port());
  EXPECT_EQ(client.Get("/metrics")->status, 500);
  EXPECT_EQ(client.Get("/metrics")->body, "fine");
}

}  // namespace
}  // namespace rubato
