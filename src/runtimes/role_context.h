#pragma once

#include <string>

#include "rubato/context/context.h"
#include "rubato/runtimes/options.h"

namespace rubato {

/// What the contexts of all runtimes share: the name, the stream, the ordering point and its events.
class RoleContext : public Context {
 public:
  RoleContext(std::string name, const RuntimeOptions& options);
  const std::string& name() const override { return name_; }
  RandomStream& random() override { return random_; }
  void ordered(Event& event, FunctionRef<void()> action) override;
  void await_turn(const Event& event) override;
  bool compares_publications() const override { return order_ != nullptr; }

 protected:
  /// Runs `action` at its place in the order, if one is kept.
  void in_order(Event& event, FunctionRef<void()> action);
  /// Blocks until `order` says that the role may do what `event` names, which changes with the turns of other roles only.
  virtual void wait_for_turn(Order& order, const Event& event) = 0;
  /// Wakes those who wait for their turn.
  virtual void turn_ended() = 0;
  void report(const Event& event, double begin, double end);
  bool observed() const { return events_ != nullptr; }
  /// Whether anybody reads what events say.
  bool events_count() const { return events_ != nullptr || order_ != nullptr; }
  /// Milliseconds to wait before the next `compute`; 0 for roles without an injected delay.
  double next_delay_ms();

 private:
  std::string name_;
  RandomStream random_, delay_stream_;
  EventSink* events_;
  Order* order_;
  double delay_low_ms_ = 0, delay_high_ms_ = 0;
};

}  // namespace rubato
