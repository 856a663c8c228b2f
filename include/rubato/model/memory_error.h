#pragma once

#include <exception>

namespace rubato {

/// Whether `error` says that memory is missing: of the standard library, or of libtorch, for a processor or a GPU.
bool is_out_of_memory(const std::exception& error);

}  // namespace rubato
