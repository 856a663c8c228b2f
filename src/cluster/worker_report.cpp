#include "cluster/worker_report.h"

#include <bit>
#include <cstdint>

#include "rubato/observe/step_tap.h"

namespace rubato {
namespace {

constexpr std::size_t most_blocks = std::size_t{1} << 16;

std::int64_t bits(double value) {
  return std::bit_cast<std::int64_t>(value);
}

}  // namespace

Packed WorkerDetails::pack() const {
  Packed packed;
  packed.numbers = {static_cast<std::int64_t>(phase), segment, step};
  return packed;
}

WorkerDetails WorkerDetails::unpack(const Packed& packed) {
  Unpacker unpacker(packed);
  WorkerDetails details;
  details.phase = static_cast<WorkerPhase>(unpacker.count(2));
  details.segment = unpacker.number();
  details.step = unpacker.number();
  return details;
}

Packed WorkerBeat::pack() const {
  Packed packed;
  packed.numbers = {
      step,         samples,        bits(loss),   bits(waited.seconds), bits(waited.longest),
      waited.waits, waited.in_vain, traffic.sent, traffic.received,     static_cast<std::int64_t>(staleness.size())};
  for (const StalenessCount& block : staleness) {
    for (const std::int64_t number : {block.updates, block.sum, block.max}) packed.numbers.push_back(number);
  }
  return packed;
}

WorkerBeat WorkerBeat::unpack(Unpacker& unpacker) {
  const auto real = [&] { return std::bit_cast<double>(unpacker.number()); };
  WorkerBeat beat;
  beat.step = unpacker.number();
  beat.samples = unpacker.number();
  beat.loss = real();
  beat.waited.seconds = real();
  beat.waited.longest = real();
  beat.waited.waits = unpacker.number();
  beat.waited.in_vain = unpacker.number();
  beat.traffic.sent = unpacker.number();
  beat.traffic.received = unpacker.number();
  beat.staleness.resize(unpacker.count(most_blocks));
  for (StalenessCount& block : beat.staleness) {
    block.updates = unpacker.number();
    block.sum = unpacker.number();
    block.max = unpacker.number();
  }
  beat.steps = unpack_steps(unpacker);
  return beat;
}

}  // namespace rubato
