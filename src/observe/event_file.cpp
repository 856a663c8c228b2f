#include "rubato/observe/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>

#include "event.pb.h"
#include "rubato/core/error.h"

namespace rubato {
namespace {

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::filesystem::path new_event_file(const std::filesystem::path& folder) {
  return folder / fmt::format("events.out.tfevents.{}.{}.rubato", static_cast<std::int64_t>(wall_time()), ::getpid());
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder) : file_(new_event_file(folder), RecordWriter::Open::append) {
  tensorboard::Event event;
  event.set_wall_time(wall_time());
  event.set_file_version("brain.Event:2");
  file_.write(event.SerializeAsString());
}

void EventFile::scalar(const std::string& tag, std::int64_t step, double value) {
  tensorboard::Event event;
  event.set_wall_time(wall_time());
  event.set_step(step);
  tensorboard::Summary::Value* entry = event.mutable_summary()->add_value();
  entry->set_tag(tag);
  entry->set_simple_value(static_cast<float>(value));
  file_.write(event.SerializeAsString());  // a full disk costs the chart, not the run
}

}  // namespace rubato
