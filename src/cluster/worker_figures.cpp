#include "cluster/worker_figures.h"

#include <bit>
#include <cstdint>

namespace rubato {
namespace {

constexpr std::size_t most_blocks = std::size_t{1} << 16;

std::int64_t bits(double value) {
  return std::bit_cast<std::int64_t>(value);
}

}  // namespace

Packed WorkerFigures::pack() const {
  Packed packed;
  packed.numbers = {samples,
                    bits(loss),
                    bits(waited.seconds),
                    bits(waited.longest),
                    waited.waits,
                    waited.in_vain,
                    traffic.sent,
                    traffic.received,
                    static_cast<std::int64_t>(staleness.size())};
  for (const StalenessCount& block : staleness) {
    for (const std::int64_t number : {block.updates, block.sum, block.max}) packed.numbers.push_back(number);
  }
  rubato::pack(packed, steps);
  return packed;
}

WorkerFigures WorkerFigures::take(Packed& packed) {
  Unpacker unpacker(packed);
  const auto real = [&] { return std::bit_cast<double>(unpacker.number()); };
  WorkerFigures figures;
  figures.samples = unpacker.number();
  figures.loss = real();
  figures.waited.seconds = real();
  figures.waited.longest = real();
  figures.waited.waits = unpacker.number();
  figures.waited.in_vain = unpacker.number();
  figures.traffic.sent = unpacker.number();
  figures.traffic.received = unpacker.number();
  figures.staleness.resize(unpacker.count(most_blocks));
  for (StalenessCount& block : figures.staleness) {
    block.updates = unpacker.number();
    block.sum = unpacker.number();
    block.max = unpacker.number();
  }
  figures.steps = unpack_steps(unpacker);
  packed.numbers.erase(packed.numbers.begin(), packed.numbers.begin() + static_cast<std::ptrdiff_t>(unpacker.numbers_taken()));
  return figures;
}

Packed CountedSteps::pack() const {
  Packed packed;
  packed.numbers = {static_cast<std::int64_t>(workers.size())};
  for (const Of& worker : workers) packed.numbers.insert(packed.numbers.end(), {worker.process, worker.steps});
  return packed;
}

CountedSteps CountedSteps::unpack(const Packed& packed) {
  Unpacker unpacker(packed);
  CountedSteps counted;
  counted.workers.resize(unpacker.count(packed.numbers.size() / 2));
  for (Of& worker : counted.workers) {
    worker.process = unpacker.number();
    worker.steps = unpacker.number();
  }
  return counted;
}

}  // namespace rubato
