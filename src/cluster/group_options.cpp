#include "cluster/group_options.h"

#include "rubato/couplings/coupling.h"
#include "rubato/job/processes.h"

namespace rubato {
namespace {

membership::WhenWorkerDies when_worker_dies(const Plan& plan) {
  using membership::WhenWorkerDies;
  const std::string& said = plan.options.when_worker_dies;
  if (said == "stop") return WhenWorkerDies::stop;
  if (said == "wait") return WhenWorkerDies::wait;
  if (said == "continue") return WhenWorkerDies::proceed;
  return goes_on_without_the_dead(plan.options, plan.place.parts) ? WhenWorkerDies::proceed : WhenWorkerDies::wait;
}

}  // namespace

membership::GroupOptions group_options(const Plan& plan) {
  const TrainOptions& options = plan.options;
  const bool has_centre = find_coupling(options.coupling).topology == Topology::centre;
  return {.policy = has_free_membership(options, plan.place.parts) ? membership::Policy::free : membership::Policy::fixed,
          .when_worker_dies = when_worker_dies(plan),
          .workers = plan.processes->world,
          .parts = plan.place.parts,
          .sums = !has_centre && options.replicas > 1,
          .centre = has_centre,
          .patience = options.patience,
          .silence = options.silence,
          .incarnation = plan.processes->incarnation,
          .total_steps = plan.total_steps,
          .trained_before = !options.init_from.empty()};
}

void pack_message(Packed& content, const membership::Message& message) {
  content.texts.push_back(membership::encode(message));
}

membership::Message unpack_message(Packed& content) {
  if (content.texts.empty()) throw PackError("a frame without its message");
  const std::string bytes = std::move(content.texts.back());
  content.texts.pop_back();
  try {
    return membership::decode(bytes);
  } catch (const membership::MessageError& error) {
    throw PackError(error.what());
  }
}

Failure failure_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    return failure_of(error);
  }
}

}  // namespace rubato
