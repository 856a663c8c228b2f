#include "launch/hosts.h"

#include <gtest/gtest.h>

#include <functional>

#include "launch/address.h"
#include "rubato/core/error.h"

namespace rubato {
namespace launch_hosts_test {

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(Hosts, reads_names_and_slots) {
  EXPECT_EQ(parse_hosts("# all of them\nnode1 slots=4  # fast\n\n  user@node2\n127.0.0.1 slots=2\r\n", "hosts"),
            (std::vector<Host>{{"node1", 4}, {"user@node2", 1}, {"localhost", 2}}));
}

TEST(Hosts, names_the_line_it_cannot_read) {
  for (const char* line : {"node1 slots=0", "node1 slots=two", "node1 4", "node1 slots=", "-oProxyCommand=x"}) {
    EXPECT_EQ(refusal([&] { parse_hosts(std::string("ok\n") + line, "hosts"); }).find("hosts, line 2"), 0u) << line;
  }
  EXPECT_NE(refusal([] { parse_hosts("# none\n", "hosts"); }), "");
  EXPECT_THROW(read_hosts("/does/not/exist"), DataError);
}

TEST(Hosts, fills_them_in_order) {
  EXPECT_EQ(fill_slots({{"a", 2}, {"b", 1}, {"c", 4}}, 4), (std::vector<std::string>{"a", "a", "b", "c"}));
}

TEST(Hosts, refuses_more_workers_than_slots) {
  EXPECT_NE(refusal([] { fill_slots({{"a", 2}, {"b", 1}}, 4); }).find("3 slots"), std::string::npos);
}

TEST(Hosts, counts_local_ranks_per_host) {
  const std::vector<std::string> hosts = {"a", "a", "b", "a"};
  EXPECT_EQ(local_place(hosts, 0), (LocalPlace{0, 3}));
  EXPECT_EQ(local_place(hosts, 2), (LocalPlace{0, 1}));
  EXPECT_EQ(local_place(hosts, 3), (LocalPlace{2, 3}));
}

TEST(Address, refuses_what_workers_cannot_connect_to) {
  EXPECT_EQ(refusal([] { check_listen_address("127.0.0.1", false); }), "");
  EXPECT_EQ(refusal([] { check_listen_address("192.0.2.1", true); }), "");
  EXPECT_NE(refusal([] { check_listen_address("0.0.0.0", false); }).find("0.0.0.0"), std::string::npos);
  EXPECT_NE(refusal([] { check_listen_address("127.0.0.1", true); }).find("other hosts"), std::string::npos);
  EXPECT_NE(refusal([] { check_listen_address("node1", false); }).find("IPv4"), std::string::npos);
}

TEST(Address, finds_a_free_port) {
  const int port = free_port("127.0.0.1");
  EXPECT_GT(port, 0);
  EXPECT_LE(port, 65535);
  EXPECT_NE(refusal([] { free_port("192.0.2.1"); }).find("address of this machine"), std::string::npos);
}

}  // namespace launch_hosts_test
}  // namespace rubato
