#include "rubato/observe/step_tap.h"

#include <bit>
#include <cstdint>

namespace rubato {
namespace {

constexpr std::size_t most_steps = std::size_t{1} << 20;

}  // namespace

void StepTap::step(const StepReport& report) {
  {
    const std::lock_guard lock(mutex_);
    if (pending_.size() < most_steps) pending_.push_back(report);
  }
  meter_.step(report);
}

void StepTap::drain(Packed& packed) {
  std::vector<StepReport> steps;
  {
    const std::lock_guard lock(mutex_);
    steps.swap(pending_);
  }
  packed.numbers.push_back(static_cast<std::int64_t>(steps.size()));
  for (const StepReport& step : steps) {
    for (const std::int64_t number :
         {step.batch, step.samples, step.correct, step.predictions, std::bit_cast<std::int64_t>(step.loss)}) {
      packed.numbers.push_back(number);
    }
  }
}

std::vector<StepReport> unpack_steps(Unpacker& unpacker) {
  std::vector<StepReport> steps(unpacker.count(most_steps));
  for (StepReport& step : steps) {
    step.batch = unpacker.number();
    step.samples = unpacker.number();
    step.correct = unpacker.number();
    step.predictions = unpacker.number();
    step.loss = std::bit_cast<double>(unpacker.number());
  }
  return steps;
}

}  // namespace rubato
