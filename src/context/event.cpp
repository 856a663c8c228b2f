#include "rubato/context/event.h"

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

namespace {

const char* word_of(ComputeKind kind) {
  switch (kind) {
    case ComputeKind::forward:
      return "forward";
    case ComputeKind::loss:
      return "loss";
    case ComputeKind::backward:
      return "backward";
    case ComputeKind::update:
      return "update";
    case ComputeKind::replay:
      return "replay";
    case ComputeKind::predict:
      return "predict";
    case ComputeKind::learn:
      return "learn";
    case ComputeKind::shrink:
      return "shrink";
    case ComputeKind::probe:
      return "probe";
    case ComputeKind::other:
      return "work";
  }
  return "?";
}

}  // namespace

std::string to_string(const Computation& computation) {
  std::string text = word_of(computation.kind);
  if (computation.micro_batch >= 0) text += " micro-batch " + std::to_string(computation.micro_batch);
  return text;
}

}  // namespace rubato
