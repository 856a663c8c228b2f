#include "runtimes/processors.h"

namespace rubato {

void Processors::Hold::acquire() {
  if (held_ || processors_.count_ == 0) return;
  std::unique_lock lock(processors_.mutex_);
  if (processors_.free_ > 0) {
    --processors_.free_;
  } else {
    Waiter me;
    processors_.waiting_.push_back(&me);
    me.called.wait(lock, [&] { return me.has_turn; });  // ends: whoever holds a processor lets it go, also when a run is stopped
  }
  held_ = true;
  since_ = std::chrono::steady_clock::now();
}

void Processors::Hold::release() {
  if (!held_) return;
  held_ = false;
  processors_.release_one();
}

void Processors::Hold::offer() {
  if (held_ && std::chrono::steady_clock::now() - since_ >= turn) release();
}

/// The longest waiting role gets it.
void Processors::release_one() {
  const std::lock_guard lock(mutex_);
  if (waiting_.empty()) {
    ++free_;
    return;
  }
  Waiter* next = waiting_.front();
  waiting_.pop_front();
  next->has_turn = true;
  next->called.notify_one();  // under the lock: the waiter lives on its role's stack
}

}  // namespace rubato
