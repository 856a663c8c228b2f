#include "rubato/runtimes/platform.h"

#include <cstdint>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"
#include "support/simulated.h"

namespace rubato {
namespace runtimes_platform_test {

using test::forwards;
using test::load;
using test::Load;
using test::transfer;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string refusal(const PlatformChoice& choice) {
  try {
    parse_platform(choice);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(Platform, presets_differ_in_what_joins_their_hosts) {
  EXPECT_EQ(parse_platform({.platform = "uniform:16"}).hosts, 16);
  EXPECT_DOUBLE_EQ(parse_platform({.platform = "lan-1g:4"}).link_bytes_per_second, 125e6);
  EXPECT_DOUBLE_EQ(parse_platform({.platform = "wan:4"}).link_latency_seconds, 30e-3);
  EXPECT_EQ(parse_platform({.platform = "mixed:8"}).speeds, (std::vector<double>{1, 0.75, 0.5, 0.25}));
  EXPECT_DOUBLE_EQ(parse_platform({.platform = "wan:2", .bandwidth = "1Gbps"}).link_bytes_per_second, 125e6);
  EXPECT_DOUBLE_EQ(parse_platform({.platform = "wan:2", .latency = "10us"}).link_latency_seconds, 10e-6);
  EXPECT_EQ(parse_platform({.platform = "mixed:2", .host_speeds = {"1:0.5"}}).speeds, (std::vector<double>{1, 0.375}));
}

TEST(Platform, what_is_wrong_is_said_in_one_sentence_with_an_example) {
  EXPECT_THAT(refusal({.platform = "ring:3"}), AllOf(HasSubstr("'ring:3'"), HasSubstr("uniform:N"), HasSubstr(".xml")));
  for (const char* wrong : {"uniform", "uniform:", "uniform:0", "uniform:x", "uniform:2x", "uniform:-1"}) {
    EXPECT_THAT(refusal({.platform = wrong}), HasSubstr("uniform:2")) << wrong;
  }
  EXPECT_THAT(refusal({.bandwidth = "fast"}), HasSubstr("--bandwidth 'fast'"));
  EXPECT_THAT(refusal({.bandwidth = "0Gbps"}), HasSubstr("above 0"));
  EXPECT_THAT(refusal({.latency = "5"}), HasSubstr("for example 50ms"));
  EXPECT_THAT(refusal({.latency = "-5ms"}), HasSubstr(">= 0"));
  EXPECT_THAT(refusal({.host_speeds = {"1:0.5"}}), HasSubstr("has 1 hosts"));
  EXPECT_THAT(refusal({.host_speeds = {"0:0"}}), HasSubstr("above 0"));
  EXPECT_THAT(refusal({.stragglers = {"0:often:5ms"}}), HasSubstr("fixed, random or bursty"));
  EXPECT_THAT(refusal({.loss = 1}), HasSubstr("--loss"));
  EXPECT_THAT(refusal({.platform = "a.xml", .latency = "5ms"}), HasSubstr("a.xml"));
}

/// A share of what the data sheets say, and never slower than a processor's core.
TEST(Platform, devices_have_the_numbers_of_real_ones) {
  const SimulatedPlatform core = parse_platform({.platform = "uniform:2"}), a100 = parse_platform({.platform = "a100:2"}),
                          h100 = parse_platform({.platform = "h100:2"}), gpus = parse_platform({.platform = "gpus:2"});
  EXPECT_DOUBLE_EQ(core.operations_per_second, 50e9);
  for (const SimulatedPlatform& platform : {a100, gpus}) {
    EXPECT_GT(platform.operations_per_second, 0.1 * 156e12);
    EXPECT_LT(platform.operations_per_second, 156e12);
    EXPECT_DOUBLE_EQ(platform.bf16_operations_per_second, 2 * platform.operations_per_second);
    EXPECT_DOUBLE_EQ(platform.link_bytes_per_second, 300e9);
  }
  EXPECT_NEAR(h100.bf16_operations_per_second / a100.bf16_operations_per_second, 989.4 / 312, 1e-9);
  EXPECT_DOUBLE_EQ(h100.link_bytes_per_second, 450e9);
}

TEST(SimulatedPlatform, a_message_takes_latency_and_its_bytes) {
  EXPECT_NEAR(transfer(parse_platform({.platform = "lan-1g:2"}), 1'250'000), 0.01 + 50e-6, 1e-6);
  EXPECT_NEAR(transfer(parse_platform({.platform = "wan:2"}), 1), 30e-3, 1e-5);
}

TEST(SimulatedPlatform, nobody_waits_behind_the_slow_message_of_another) {
  const Channel<Load> channel{{"loads", 10}};
  std::vector<int> order;
  const auto sender = [&](int number, std::size_t bytes) {
    return [&, number, bytes](Context& me) {
      me.sleep(number * 1e-3);
      send(me, channel, load(bytes, number));
      send(me, channel, load(1, number));
    };
  };
  make_simulator(parse_platform({.platform = "lan-1g:3"}), {})
      ->run({{.name = "slow", .run = sender(0, 12'500'000)},
             {.name = "fast", .run = sender(1, 1), .device = 1},
             {.name = "receiver",
              .run =
                  [&](Context& me) {
                    for (int i = 0; i < 4; ++i) order.push_back(receive(me, channel).sender);
                  },
              .device = 2}});
  EXPECT_EQ(order, (std::vector<int>{1, 1, 0, 0})) << "and nobody overtakes himself";
}

TEST(SimulatedPlatform, senders_share_the_link_of_their_receiver) {
  const Channel<Load> channel{{"loads", 10}};
  double end = 0;
  std::vector<Role> roles;
  for (int i = 0; i < 4; ++i) {
    roles.push_back({.name = std::to_string(i), .run = [&](Context& me) { send(me, channel, load(1'250'000)); }, .device = i});
  }
  roles.push_back({.name = "centre",
                   .run =
                       [&](Context& me) {
                         for (int i = 0; i < 4; ++i) receive(me, channel);
                         end = me.now();
                       },
                   .device = 4});
  make_simulator(parse_platform({.platform = "lan-1g:5"}), {})->run(roles);
  EXPECT_NEAR(end, 0.04, 1e-3);
}

TEST(SimulatedPlatform, a_slower_host_takes_longer) {
  EXPECT_NEAR(forwards(parse_platform({.platform = "uniform:2", .host_speeds = {"0:0.5"}}), 3), 6, 1e-6);
}

TEST(SimulatedPlatform, stragglers_are_late_as_they_are_told) {
  const auto with = [](const std::string& straggler) { return parse_platform({.stragglers = {straggler}}); };
  EXPECT_NEAR(forwards(with("0:fixed:500ms"), 10), 15, 1e-6);
  const double random = forwards(with("0:random:500ms"), 200);
  EXPECT_NEAR(random, 300, 30) << "mean half a second";
  EXPECT_NEAR(forwards(with("0:random:500ms"), 200), random, 1e-6);
  EXPECT_GT(std::abs(forwards(with("0:random:500ms"), 200, 2) - random), 1e-3);
  const double bursty = forwards(with("0:bursty:1s"), 1000) - 1000;
  EXPECT_GT(bursty, 100);
  EXPECT_LT(bursty, 600);
}

TEST(SimulatedPlatform, lost_messages_are_sent_again) {
  const SimulatedPlatform lossy = parse_platform({.platform = "lan-1g:2", .loss = 0.5});
  double sum = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) sum += transfer(lossy, 1, seed);
  EXPECT_NEAR(sum / 40, 0.2, 0.12) << "half are lost once, a quarter twice, ...: one time-out of 0.2 s in the mean";
  EXPECT_NEAR(transfer(lossy, 1, 3), transfer(lossy, 1, 3), 1e-6);
}

}  // namespace runtimes_platform_test
}  // namespace rubato
