#include "cluster/orders.h"

#include <cstdint>

namespace rubato {
namespace {

/// What `packed` holds after the first `numbers` numbers and `texts` texts.
Packed rest_of(const Packed& packed, std::size_t numbers, std::size_t texts) {
  Packed rest;
  rest.numbers.assign(packed.numbers.begin() + static_cast<std::ptrdiff_t>(numbers), packed.numbers.end());
  rest.texts.assign(packed.texts.begin() + static_cast<std::ptrdiff_t>(texts), packed.texts.end());
  rest.tensors = packed.tensors;
  return rest;
}

constexpr std::size_t most_members = std::size_t{1} << 16;

}  // namespace

Packed BeginOrder::pack() const {
  Packed packed = state;
  std::vector<std::int64_t> numbers = {start, segment, begin, end, group_version, static_cast<std::int64_t>(members.size())};
  numbers.insert(numbers.end(), members.begin(), members.end());
  packed.numbers.insert(packed.numbers.begin(), numbers.begin(), numbers.end());
  return packed;
}

BeginOrder BeginOrder::unpack(const Packed& packed) {
  Unpacker unpacker(packed);
  BeginOrder begin;
  begin.start = static_cast<Start>(unpacker.count(join));
  begin.segment = unpacker.number();
  begin.begin = unpacker.number();
  begin.end = unpacker.number();
  begin.group_version = unpacker.number();
  begin.members.resize(unpacker.count(most_members));
  for (std::int64_t& member : begin.members) member = unpacker.number();
  begin.state = rest_of(packed, 6 + begin.members.size(), 0);
  return begin;
}

Packed FinishedReport::pack() const {
  Packed packed = beat;
  packed.numbers.insert(packed.numbers.begin(), {segment, position});
  packed.texts.insert(packed.texts.begin(), digest);
  packed.tensors = state.tensors;
  return packed;
}

FinishedReport FinishedReport::unpack(const Packed& packed) {
  Unpacker unpacker(packed);
  FinishedReport report;
  report.segment = unpacker.number();
  report.position = unpacker.number();
  report.digest = unpacker.text();
  report.beat = rest_of(packed, 2, 1);
  report.beat.tensors.clear();
  report.state.tensors = packed.tensors;
  return report;
}

}  // namespace rubato
