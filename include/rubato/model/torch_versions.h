#pragma once

#include <ATen/autocast_mode.h>
#include <torch/version.h>

/// All that differs between the versions of libtorch that rubato is built with (1.13 and later); nothing else asks for a version.
namespace rubato::torch_versions {

// Autocast of the CPU on this thread. From 2.4 on by device, and the old names warn.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
inline bool is_cpu_autocast_enabled() {
  return at::autocast::is_autocast_enabled(at::kCPU);
}
inline void enable_cpu_autocast(bool enabled) {
  at::autocast::set_autocast_enabled(at::kCPU, enabled);
}
inline void set_cpu_autocast_type(at::ScalarType type) {
  at::autocast::set_autocast_dtype(at::kCPU, type);
}
#else
inline bool is_cpu_autocast_enabled() {
  return at::autocast::is_cpu_enabled();
}
inline void enable_cpu_autocast(bool enabled) {
  at::autocast::set_cpu_enabled(enabled);
}
inline void set_cpu_autocast_type(at::ScalarType type) {
  at::autocast::set_autocast_cpu_dtype(type);
}
#endif

}  // namespace rubato::torch_versions
