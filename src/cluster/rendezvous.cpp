#include "cluster/rendezvous.h"

namespace rubato {
namespace {

constexpr std::chrono::milliseconds between_questions{500};

}  // namespace

void RendezvousAtCoordinator::put(const std::string& key, const std::string& value) {
  send(membership::Put{key, value});
}

std::optional<std::string> RendezvousAtCoordinator::get(const std::string& key) {
  std::unique_lock lock(mutex_);
  const auto known = [&] { return values_.contains(key); };
  if (!known()) {
    lock.unlock();
    send(membership::Look{key});
    lock.lock();
    if (!changed_.wait_for(lock, between_questions, known)) return std::nullopt;
  }
  return values_.at(key);
}

void RendezvousAtCoordinator::came(const membership::Found& found) {
  const std::lock_guard lock(mutex_);
  values_[found.key] = found.value;
  changed_.notify_all();
}

void RendezvousAtCoordinator::close() {
  const std::lock_guard lock(mutex_);
  send_ = nullptr;
}

void RendezvousAtCoordinator::send(const membership::Message& message) {
  const std::lock_guard lock(mutex_);
  if (send_) send_(message);
}

}  // namespace rubato
