#pragma once

#include "rubato/model/torch_versions.h"

namespace rubato {

/// bfloat16 autocast on this thread while it lives. Never held across a blocking call.
class AutocastScope {
 public:
  explicit AutocastScope(bool enabled) : enabled_(enabled), before_(torch_versions::is_cpu_autocast_enabled()) {
    if (!enabled_) return;
    torch_versions::enable_cpu_autocast(true);
    torch_versions::set_cpu_autocast_type(at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~AutocastScope() {
    if (!enabled_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    torch_versions::enable_cpu_autocast(before_);
  }
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  bool enabled_, before_;
};

}  // namespace rubato
