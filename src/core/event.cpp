#include "rubato/core/event.h"

namespace rubato {

const char* to_string(EventKind kind) {
  switch (kind) {
    case EventKind::take_batch:
      return "take";
    case EventKind::read:
      return "read";
    case EventKind::publish:
      return "publish";
    case EventKind::publish_buffers:
      return "publish-statistics";
    case EventKind::send:
      return "send";
    case EventKind::receive:
      return "receive";
    case EventKind::compute:
      return "compute";
    case EventKind::all_reduce:
      return "all-reduce";
    case EventKind::sleep:
      return "sleep";
    case EventKind::leave:
      return "leave";
    case EventKind::change:
      return "change";
  }
  return "?";
}

}  // namespace rubato
