#include "runtimes/role_context.h"

#include <cstdint>
#include <functional>

namespace rubato {
namespace {

/// FNV-1a: a stable number for a role's name.
std::uint64_t name_key(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

}  // namespace

RoleContext::RoleContext(std::string name, const RuntimeOptions& options)
    : name_(std::move(name)),
      random_(options.seed, RandomUse::role, {name_key(name_)}),
      delay_stream_(options.seed, RandomUse::delay, {name_key(name_)}),
      events_(options.events),
      order_(options.order) {
  for (const InjectedDelay& delay : options.delays) {
    if (delay.role != name_) continue;
    delay_low_ms_ = delay.low_ms;
    delay_high_ms_ = delay.high_ms;
  }
}

void RoleContext::await_turn(const Event& event) {
  if (order_ != nullptr && order_->waits()) wait_for_turn(*order_, event);
}

void RoleContext::in_order(Event& event, FunctionRef<void()> action) {
  if (order_ == nullptr) return action();
  await_turn(event);
  order_->act(name_, event, action);
  if (order_->waits()) turn_ended();
}

void RoleContext::ordered(Event& event, FunctionRef<void()> action) {
  in_order(event, action);
  if (observed()) {
    const double time = now();
    report(event, time, time);
  }
}

void RoleContext::report(const Event& event, double begin, double end) {
  if (observed()) events_->add(name_, event, begin, end);
}

double RoleContext::next_delay_ms() {
  if (delay_high_ms_ <= 0) return 0;
  return delay_low_ms_ + (delay_high_ms_ - delay_low_ms_) * delay_stream_.uniform();
}

}  // namespace rubato
