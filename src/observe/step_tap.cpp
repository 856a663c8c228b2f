#include "rubato/observe/step_tap.h"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace rubato {
namespace {

constexpr std::size_t most_pending = std::size_t{1} << 20, most_in_a_message = 4096;

}  // namespace

void StepTap::step(const StepReport& report) {
  {
    const std::lock_guard lock(mutex_);
    if (pending_.size() < most_pending) pending_.push_back(report);
  }
  meter_.step(report);
}

TappedSteps StepTap::pending() const {
  const std::lock_guard lock(mutex_);
  const auto count = static_cast<std::ptrdiff_t>(std::min(pending_.size(), most_in_a_message));
  return {first_, {pending_.begin(), pending_.begin() + count}};
}

void StepTap::counted(std::int64_t steps) {
  const std::lock_guard lock(mutex_);
  while (first_ < steps && !pending_.empty()) {
    pending_.pop_front();
    ++first_;
  }
}

void pack(Packed& packed, const TappedSteps& tapped) {
  packed.numbers.insert(packed.numbers.end(), {tapped.first, static_cast<std::int64_t>(tapped.steps.size())});
  for (const StepReport& step : tapped.steps) {
    for (const std::int64_t number :
         {step.batch, step.samples, step.correct, step.predictions, std::bit_cast<std::int64_t>(step.loss)}) {
      packed.numbers.push_back(number);
    }
  }
}

TappedSteps unpack_steps(Unpacker& unpacker) {
  TappedSteps tapped;
  tapped.first = unpacker.number();
  tapped.steps.resize(unpacker.count(most_in_a_message));
  for (StepReport& step : tapped.steps) {
    step.batch = unpacker.number();
    step.samples = unpacker.number();
    step.correct = unpacker.number();
    step.predictions = unpacker.number();
    step.loss = std::bit_cast<double>(unpacker.number());
  }
  return tapped;
}

}  // namespace rubato
