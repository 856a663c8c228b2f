#pragma once

#include <ATen/autocast_mode.h>

namespace rubato {

/// bfloat16 autocast on this thread while it lives. Never held across a blocking call.
class AutocastScope {
 public:
  explicit AutocastScope(bool enabled) : enabled_(enabled), before_(at::autocast::is_cpu_enabled()) {
    if (!enabled_) return;
    at::autocast::set_cpu_enabled(true);
    at::autocast::set_autocast_cpu_dtype(at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~AutocastScope() {
    if (!enabled_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_cpu_enabled(before_);
  }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  bool enabled_, before_;
};

}  // namespace rubato
