#include "rubato/context/order.h"

namespace rubato {

std::string object_of(const Event& event) {
  const std::string owner = event.of.empty() ? "" : " of " + event.of;
  switch (event.kind) {
    case EventKind::take_batch:
      return "batches" + owner;
    case EventKind::read:
    case EventKind::publish:
    case EventKind::publish_buffers:
      return "block " + std::to_string(event.block) + owner;
    default:
      return to_string(event.kind) + (" " + event.what);
  }
}

}  // namespace rubato
