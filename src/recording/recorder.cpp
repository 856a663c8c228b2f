#include "rubato/recording/recorder.h"

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "order.pb.h"
#include "recording/format.h"
#include "rubato/io/record_file.h"

namespace rubato {

struct Recorder::State {
  static constexpr int events_per_part = 4096;

  explicit State(const std::filesystem::path& path) : file(path, RecordWriter::Open::truncate) {}

  std::mutex mutex;  // guards everything below; held during each event, which is short
  RecordWriter file;
  recording::Part part;
  std::unordered_map<std::string, std::uint32_t> roles, objects;
  std::int64_t events = 0;
  bool failed = false;

  void flush() {
    if (!file.write(part.SerializeAsString())) failed = true;
    part.Clear();
  }
  template <class Names>
  static std::uint32_t number(std::unordered_map<std::string, std::uint32_t>& known, const std::string& name, Names* fresh) {
    const auto [found, is_new] = known.emplace(name, static_cast<std::uint32_t>(known.size()));
    if (is_new) fresh->Add(std::string(name));
    return found->second;
  }
  void add(const std::string& role, const Event& event) {
    part.add_role(number(roles, role, part.mutable_new_roles()));
    part.add_object(number(objects, object_of(event), part.mutable_new_objects()));
    part.add_kind(static_cast<std::uint32_t>(event.kind));
    part.add_version(event.version);
    part.add_batch(event.batch);
    part.add_checksum(event.checksum);
    ++events;
    if (part.role_size() == events_per_part) flush();
  }
};

Recorder::Recorder(const std::filesystem::path& path) : state_(std::make_unique<State>(path)) {
  state_->part.set_header(recording_header);
  state_->flush();
}

Recorder::~Recorder() = default;

void Recorder::act(const std::string& role, Event& event, FunctionRef<void()> action) {
  const std::lock_guard lock(state_->mutex);
  action();
  state_->add(role, event);
}

void Recorder::begin_segment(std::int64_t step) {
  const std::lock_guard lock(state_->mutex);
  state_->part.mutable_segment_begins()->set_step(step);
  state_->flush();
}

void Recorder::end_segment(std::int64_t step) {
  const std::lock_guard lock(state_->mutex);
  if (state_->part.role_size() > 0) state_->flush();
  state_->part.mutable_segment_ends()->set_step(step);
  state_->flush();
}

void Recorder::finish(const std::string& weights_digest) {
  const std::lock_guard lock(state_->mutex);
  state_->part.mutable_end()->set_events(state_->events);
  state_->part.mutable_end()->set_weights_digest(weights_digest);
  state_->flush();
}

bool Recorder::failed() const {
  const std::lock_guard lock(state_->mutex);
  return state_->failed;
}

}  // namespace rubato
