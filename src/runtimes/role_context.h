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

 protected:
  void report(const Event& event, double begin, double end);
  bool observed() const { return events_ != nullptr; }
  /// Milliseconds to wait before the next `compute`; 0 for roles without an injected delay.
  double next_delay_ms();

 private:
  std::string name_;
  RandomStream random_, delay_stream_;
  EventSink* events_;
  double delay_low_ms_ = 0, delay_high_ms_ = 0;
};

}  // namespace rubato
