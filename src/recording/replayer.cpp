#include "rubato/recording/replayer.h"

#include <fmt/format.h>

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "rubato/core/error.h"

namespace rubato {

struct Replayer::State {
  /// The events on one thing, in order.
  struct Queue {
    std::vector<const RecordedEvent*> events;
    std::size_t next = 0;
    bool over() const { return next == events.size(); }
  };
  std::mutex mutex;  // guards everything below
  std::unordered_map<std::string, Queue> queues;
};

namespace {

std::string describe(const std::string& role, const Event& event) {
  std::string text = fmt::format("{}: {} {}", role, to_string(event.kind), object_of(event));
  if (event.version >= 0) text += fmt::format(", version {}", event.version);
  if (event.batch >= 0) text += fmt::format(", step {}", event.batch);
  return text;
}

std::string describe(const Recording& recording, const RecordedEvent& event) {
  std::string text =
      fmt::format("{}: {} {}", recording.roles.at(event.role), to_string(event.kind), recording.objects.at(event.object));
  if (event.version >= 0) text += fmt::format(", version {}", event.version);
  if (event.batch >= 0) text += fmt::format(", step {}", event.batch);
  return text;
}

}  // namespace

Replayer::Replayer(Recording recording) : recording_(std::move(recording)), state_(std::make_unique<State>()) {}

Replayer::~Replayer() = default;

bool Replayer::may_act(const std::string& role, const Event& event) {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->queues.find(object_of(event));
  if (found == state_->queues.end() || found->second.over()) {
    throw DataError(fmt::format("the replay differs from the recording: '{}', of which the recording knows nothing more",
                                describe(role, event)));
  }
  const RecordedEvent& next = *found->second.events[found->second.next];
  if (recording_.roles[next.role] != role) return false;
  if (next.kind != event.kind) {
    throw DataError(fmt::format("the replay differs from the recording: '{}' instead of '{}'", describe(role, event),
                                describe(recording_, next)));
  }
  return true;
}

std::string Replayer::next_to_act(const Event& event) {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->queues.find(object_of(event));
  if (found == state_->queues.end() || found->second.over()) return "";
  return describe(recording_, *found->second.events[found->second.next]);
}

void Replayer::act(const std::string& role, Event& event, FunctionRef<void()> action) {
  action();  // nobody else may act on this thing before the turn is over
  const std::lock_guard lock(state_->mutex);
  State::Queue& queue = state_->queues.at(object_of(event));
  const RecordedEvent& recorded = *queue.events.at(queue.next++);
  // What a runtime does not know at this moment, it does not say.
  const auto differs = [](std::int64_t now, std::int64_t then) { return now >= 0 && then >= 0 && now != then; };
  if (differs(event.version, recorded.version) || differs(event.batch, recorded.batch)) {
    throw DataError(fmt::format("the replay differs from the recording: '{}' instead of '{}'", describe(role, event),
                                describe(recording_, recorded)));
  }
  if (event.checksum != recorded.checksum) {
    throw DataError(fmt::format("the replay differs from the recording: other values at '{}'; another build, processor or data?",
                                describe(role, event)));
  }
}

void Replayer::begin_segment(std::size_t index) {
  const std::lock_guard lock(state_->mutex);
  state_->queues.clear();
  for (const RecordedEvent& event : recording_.segments.at(index).events) {
    state_->queues[recording_.objects[event.object]].events.push_back(&event);
  }
}

void Replayer::end_segment() {
  const std::lock_guard lock(state_->mutex);
  for (const auto& [object, queue] : state_->queues) {
    if (queue.over()) continue;
    throw DataError(
        fmt::format("the replay differs from the recording: nobody did '{}'", describe(recording_, *queue.events[queue.next])));
  }
}

}  // namespace rubato
