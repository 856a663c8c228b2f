#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "rubato/context/event.h"

namespace rubato {

/// Counts events. Thread-safe.
class EventCounter final : public EventSink {
 public:
  void add(const std::string&, const Event&, double, double) override { ++count_; }
  std::int64_t count() const { return count_; }

 private:
  std::atomic<std::int64_t> count_{0};
};

}  // namespace rubato
