#pragma once

#include <string>

#include "rubato/context/event.h"
#include "rubato/core/function_ref.h"

namespace rubato {

/// Who acts, and the one ordering point that every read, publication, message and batch passes. All that
/// stores and sources of batches need to know of a role; used only on the role's own thread.
class Actor {
 public:
  virtual ~Actor() = default;
  virtual const std::string& name() const = 0;

  /// Runs `action`, which fills in what it found out (a version, a batch), and then reports `event`. `action` is short: a
  /// pointer swap, an index increment; never arithmetic and never blocking.
  virtual void ordered(Event& event, FunctionRef<void()> action) = 0;

  /// In a replay: blocks until the recording says that it is this actor's turn to do what `event` names; the turn ends with
  /// `ordered`. Whoever takes a lock before `ordered` calls this before the lock. Otherwise nothing happens.
  virtual void await_turn(const Event&) {}
  /// Whether somebody compares what is published, so that `Event::checksum` is worth its time.
  virtual bool compares_publications() const { return false; }
};

/// For code outside any run: tests, evaluation, export.
class Bystander final : public Actor {
 public:
  const std::string& name() const override { return name_; }
  void ordered(Event&, FunctionRef<void()> action) override { action(); }

 private:
  std::string name_ = "bystander";
};

}  // namespace rubato
