#pragma once

#include <string>

#include "rubato/context/event.h"
#include "rubato/core/function_ref.h"

namespace rubato {

/// In which order roles act on what they share: a block of a store, a source of batches, one end of a channel. A runtime asks it
/// at every such event; a recorder takes the order down, a replayer enforces it. Thread-safe.
///
/// Events of different things have no order: what each role reads, and so every bit of the result, follows from the order at
/// each.
class Order {
 public:
  virtual ~Order() = default;
  /// Whether it makes roles wait. If not, nobody has to ask `may_act`.
  virtual bool waits() const = 0;
  /// Whether it is the turn of `role` to do what `event` names. Once true it stays true until `role` acts. DataError when no
  /// later moment can make it true.
  virtual bool may_act(const std::string& role, const Event& event) = 0;
  /// Who has to act on the thing of `event` first, for explanations; empty if nobody.
  virtual std::string next_to_act(const Event&) { return ""; }
  /// Runs `action`, which fills in `event`, at its place in the order. DataError when it is not what had to come.
  virtual void act(const std::string& role, Event& event, FunctionRef<void()> action) = 0;
};

/// The thing whose order `event` belongs to: "block 3 of r0", "batches of r0", "send requests".
std::string object_of(const Event& event);

}  // namespace rubato
