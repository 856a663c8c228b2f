#include <malloc.h>

#include "allocator/allocator.h"

namespace rubato {

double bytes_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks + info.hblkhd);
}

}  // namespace rubato
