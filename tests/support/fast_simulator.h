#pragma once

#include "rubato/runtimes/options.h"

namespace rubato::test {

/// Sanitizers do not follow roles that share a thread. Where nothing is replayed the others are faster so.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool one_thread = false;
#else
inline constexpr bool one_thread = true;
#endif

}  // namespace rubato::test
