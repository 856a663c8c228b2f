#include "rubato/model/memory_error.h"

#include <c10/util/Exception.h>

#include <new>
#include <stdexcept>
#include <string>

namespace rubato {

bool is_out_of_memory(const std::exception& error) {
  // More elements than a container can count were asked for before memory was.
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr || dynamic_cast<const std::length_error*>(&error) != nullptr)
    return true;
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  if (of_torch == nullptr) return false;
  const std::string text = of_torch->what_without_backtrace();
  for (const char* words : {"can't allocate memory", "not enough memory", "out of memory"}) {
    if (text.find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace rubato
