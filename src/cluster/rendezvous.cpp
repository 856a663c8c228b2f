#include "cluster/rendezvous.h"

#include "cluster/orders.h"
#include "rubato/wire/packing.h"

namespace rubato {
namespace {

constexpr std::chrono::milliseconds between_questions{500};

}  // namespace

std::set<int> RendezvousBoard::put(const std::string& key, std::string value) {
  values_[key] = std::move(value);
  const auto asking = asking_.extract(key);
  return asking ? asking.mapped() : std::set<int>();
}

std::optional<std::string> RendezvousBoard::ask(int rank, const std::string& key) {
  if (const auto found = values_.find(key); found != values_.end()) return found->second;
  asking_[key].insert(rank);
  return std::nullopt;
}

void RendezvousBoard::clear() {
  values_.clear();
  asking_.clear();
}

void RendezvousAtCoordinator::put(const std::string& key, const std::string& value) {
  Packed content;
  content.texts = {key};
  pack_bytes(content, value);
  send(report::put, std::move(content));
}

std::optional<std::string> RendezvousAtCoordinator::get(const std::string& key) {
  std::unique_lock lock(mutex_);
  const auto known = [&] { return values_.contains(key); };
  if (!known()) {
    lock.unlock();
    Packed content;
    content.texts = {key};
    send(report::look, std::move(content));
    lock.lock();
    if (!changed_.wait_for(lock, between_questions, known)) return std::nullopt;
  }
  return values_.at(key);
}

void RendezvousAtCoordinator::came(const std::string& key, std::string value) {
  const std::lock_guard lock(mutex_);
  values_[key] = std::move(value);
  changed_.notify_all();
}

void RendezvousAtCoordinator::close() {
  const std::lock_guard lock(mutex_);
  send_ = nullptr;
}

void RendezvousAtCoordinator::send(const char* about, Packed content) {
  const std::lock_guard lock(mutex_);
  if (send_) send_(about, std::move(content));
}

}  // namespace rubato
