#pragma once

#include <mutex>
#include <string>
#include <utility>

#include "rubato/context/actor.h"

namespace rubato {

/// Guards what several roles change beside stores and channels. In which order they do so is known to a recording, as all else
/// that depends on timing has to be.
class OrderedMutex {
 public:
  /// `name`: of what it guards, unique in a run.
  explicit OrderedMutex(std::string name) : name_(std::move(name)) {}

  /// Runs `action`, which does not block, alone.
  void alone(Actor& actor, FunctionRef<void()> action) {
    Event event{.kind = EventKind::change, .what = name_};
    actor.await_turn(event);
    const std::lock_guard lock(mutex_);
    action();
    actor.ordered(event, [] {});
  }

 private:
  std::string name_;
  std::mutex mutex_;
};

}  // namespace rubato
