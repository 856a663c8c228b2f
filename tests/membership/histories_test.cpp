// Random histories of jobs, from seeds. In each, processes join, die, fall silent and come back; messages are lost, doubled and
// reordered; the coordinator dies, its launcher dies, the disk is full, somebody asks to stop, a worker's loss diverges.
//
// What holds in every one:
//  1. Nobody waits for ever: every process ends, within the patience of the job after the last fault.
//  2. No update is applied twice and none is lost: when a segment ends, each replica that is kept has made as many steps as the
//     run, whatever was done again; and a worker begins a segment with a replica of exactly as many steps as it begins with.
//  3. One step counts once: the run's position never goes back, and it is done when it has all its steps.
//  4. A sum is the same on all who have it: replicas of a group that sums have summed the same, step by step.
//  5. The job ends with the right code everywhere: 0 only when it is done, and who is told the end ends with the job's code; who
//     is not, because its coordinator is lost, never with 0. After a signal to a worker alone it is 130 in every process, or the
//     job was over; a segment that ends too soon says that somebody has asked for it, and what has been done is saved.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>

#include "membership/world.h"

namespace membership_histories_test {

using membership_world::Plan;
using membership_world::plan_of;
using membership_world::World;

std::string describe(const Plan& plan) {
  std::string text = fmt::format(
      "seed {}: {} workers, {} parts, {}, sums {}, centre {}, when a worker dies {}, {} steps of {}, "
      "loss {:.2f}, doubling {:.2f}, slowest {:.3f}, restarts {}; faults",
      plan.seed, plan.group.workers, plan.group.parts, plan.group.policy == rubato::membership::Policy::free ? "free" : "fixed",
      plan.group.sums, plan.group.centre, static_cast<int>(plan.group.when_worker_dies), plan.group.total_steps,
      plan.segment_steps, plan.loss, plan.doubling, plan.slowest, plan.restarts);
  for (const auto& [when, fault] : plan.faults) text += fmt::format(" {} at {:.2f}", static_cast<int>(fault), when);
  return text;
}

std::int64_t from_environment(const char* name, std::int64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoll(value);
}

TEST(Histories, of_jobs_end_well) {
  const std::int64_t count = from_environment("RUBATO_HISTORIES", 100000);
  const std::int64_t first = from_environment("RUBATO_FIRST_SEED", 1);
  const auto begin = std::chrono::steady_clock::now();
  int failed = 0;
  double longest = 0;
  for (std::int64_t i = 0; i < count && failed < 5; ++i) {
    const Plan plan = plan_of(static_cast<std::uint64_t>(first + i));
    World world(plan);
    world.trace = count == 1;
    const std::string wrong = world.run();
    longest = std::max(longest, world.ended());
    if (wrong.empty()) continue;
    ++failed;
    ADD_FAILURE() << wrong << "\n" << describe(plan);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("{} histories in {:.1f} s, {:.0f} per minute; the longest took {:.1f} s of its own time\n", count, seconds,
             60 * static_cast<double>(count) / seconds, longest);
}

}  // namespace membership_histories_test
