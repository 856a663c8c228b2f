#pragma once

#include <ATen/autocast_mode.h>
#include <c10/util/C++17.h>
#include <torch/version.h>

#include <string>

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

// Where an optimizer keeps the state of a parameter: by address, before 2.0 by the address as text.
#if TORCH_VERSION_MAJOR >= 2
inline auto optimizer_key(const at::Tensor& parameter) {
  return parameter.unsafeGetTensorImpl();
}
#else
inline std::string optimizer_key(const at::Tensor& parameter) {
  return c10::guts::to_string(parameter.unsafeGetTensorImpl());
}
#endif

}  // namespace rubato::torch_versions
