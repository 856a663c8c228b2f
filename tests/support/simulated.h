#pragma once

#include <cstdint>

#include "rubato/runtimes/options.h"

namespace rubato::test {

struct Load final : Message {
  std::size_t size = 0;
  int sender = 0;
  std::size_t bytes() const override { return size; }
};

inline Load load(std::size_t size, int sender = 0) {
  Load message;
  message.size = size;
  message.sender = sender;
  return message;
}

/// Virtual time at which host `to` has a message of `bytes` that host 0 sent at 0.
inline double transfer(const SimulatedPlatform& platform, std::size_t bytes, std::uint64_t seed = 1) {
  const Channel<Load> channel{{"loads", 1}};
  double arrived = 0;
  make_simulator(platform, {.seed = seed})
      ->run({{.name = "sender", .run = [&](Context& me) { send(me, channel, load(bytes)); }},
             {.name = "receiver",
              .run =
                  [&](Context& me) {
                    receive(me, channel);
                    arrived = me.now();
                  },
              .device = 1}});
  return arrived;
}
/// Virtual time of `passes` forward passes of a second each on host 0.
inline double forwards(const SimulatedPlatform& platform, int passes, std::uint64_t seed = 1) {
  double end = 0;
  make_simulator(platform, {.seed = seed})->run({{.name = "worker", .run = [&](Context& me) {
                                                    for (int i = 0; i < passes; ++i) {
                                                      me.compute(ComputeKind::forward, i, 1, [] {});
                                                      me.compute(ComputeKind::backward, i, 0, [] {});
                                                    }
                                                    end = me.now();
                                                  }}});
  return end;
}

}  // namespace rubato::test
