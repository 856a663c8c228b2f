#pragma once

#include <mutex>
#include <string>
#include <utility>

#include "rubato/context/actor.h"

namespace rubato {

/// Tells which of several roles is the last to leave, and so has to do what is left to do. An ordered event: who it is depends on
/// timing, so a recording has to know it.
class LastToLeave {
 public:
  /// `name`: of the group, unique in a run.
  explicit LastToLeave(std::string name) : name_(std::move(name)) {}

  /// `members` will leave. While nobody is about to.
  void expect(int members) {
    const std::lock_guard lock(mutex_);
    left_ = members;
  }
  bool leave(Actor& actor) {
    bool last = false;
    Event event{.kind = EventKind::leave, .what = name_};
    actor.ordered(event, [&] {
      const std::lock_guard lock(mutex_);
      last = --left_ == 0;
    });
    return last;
  }

 private:
  std::string name_;
  std::mutex mutex_;
  int left_ = 0;
};

}  // namespace rubato
