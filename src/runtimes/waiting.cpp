#include "runtimes/waiting.h"

#include <chrono>
#include <cstdint>

namespace rubato {
namespace {

constexpr std::chrono::seconds between_looks{1};

}  // namespace

std::string deadlock_sentence(const std::map<std::string, std::string>& waits) {
  std::string text = "deadlock: every role waits for another: ";
  const char* separator = "";
  for (const auto& [role, what] : waits) {
    text += separator + role + " waits for " + what;
    separator = "; ";
  }
  return text;
}

Waiting::Waiting(int roles, std::function<void(const std::string&)> found)
    : found_(std::move(found)), roles_(roles), watcher_([this](const std::stop_token& stop) { watch(stop); }) {}

Waiting::Scope::Scope(Waiting& waiting, const std::string& role, std::string what, std::function<bool()> may_go_on)
    : waiting_(waiting), role_(role) {
  const std::lock_guard lock(waiting_.mutex_);
  waiting_.waits_[role] = {std::move(what), std::move(may_go_on)};
  ++waiting_.changes_;
}

Waiting::Scope::~Scope() {
  const std::lock_guard lock(waiting_.mutex_);
  waiting_.waits_.erase(role_);
  ++waiting_.changes_;
}

void Waiting::role_left() {
  const std::lock_guard lock(mutex_);
  --roles_;
  ++changes_;
}

void Waiting::watch(const std::stop_token& stop) {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, stop, between_looks, [] { return false; });
      if (stop.stop_requested()) return;
    }
    if (!all_wait_in_vain()) continue;
    std::map<std::string, std::string> waits;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [role, wait] : waits_) waits[role] = wait.what;
    }
    found_(deadlock_sentence(waits));
    return;
  }
}

bool Waiting::all_wait_in_vain() {
  std::map<std::string, Wait> waits;
  std::int64_t changes = 0;
  {
    const std::lock_guard lock(mutex_);
    if (roles_ == 0 || static_cast<int>(waits_.size()) < roles_) return false;
    waits = waits_;
    changes = changes_;
  }
  try {
    for (const auto& [role, wait] : waits) {
      if (wait.may_go_on()) return false;
    }
  } catch (...) {
    return false;  // the role that waits for it finds out itself
  }
  const std::lock_guard lock(mutex_);
  return changes == changes_;
}

}  // namespace rubato
