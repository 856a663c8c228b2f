#include "rubato/recording/recording.h"

#include <cstdint>

#include <fmt/format.h>

#include "order.pb.h"
#include "recording/format.h"
#include "rubato/core/error.h"
#include "rubato/io/record_file.h"

namespace rubato {
namespace {

/// Puts the parts of one file together.
class Loader {
 public:
  explicit Loader(const std::filesystem::path& path) : path_(path), file_(path) {}

  Recording load() {
    if (next().header() != recording_header) refuse("is no recording of this version");
    while (!ended_) add(next());
    if (file_.next()) refuse("goes on after its end");
    return std::move(all_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw DataError(fmt::format("{} {}, in part {} after {} events", path_.string(), what, part_, all_.events()));
  }

  recording::Part next() {
    ++part_;
    const auto bytes = file_.next();
    if (!bytes) refuse("was cut: the run was killed or diverged, or the end of the file is missing");
    recording::Part part;
    if (!part.ParseFromString(*bytes)) refuse("holds something else than events");
    return part;
  }

  void add(const recording::Part& part) {
    all_.roles.insert(all_.roles.end(), part.new_roles().begin(), part.new_roles().end());
    all_.objects.insert(all_.objects.end(), part.new_objects().begin(), part.new_objects().end());
    if (part.has_segment_begins()) {
      if (open_) refuse("begins a segment inside another");
      all_.segments.push_back({.begin = part.segment_begins().step()});
      open_ = true;
    }
    add_events(part);
    if (part.has_segment_ends()) {
      if (!open_) refuse("ends a segment that never began");
      all_.segments.back().end = part.segment_ends().step();
      open_ = false;
    }
    if (part.has_end()) {
      if (open_ || part.end().events() != all_.events()) refuse("lacks a part before its end");
      all_.weights_digest = part.end().weights_digest();
      ended_ = true;
    }
  }

  void add_events(const recording::Part& part) {
    const int count = part.role_size();
    if (count > 0 && !open_) refuse("has events outside of a segment");
    for (const int size : {part.object_size(), part.kind_size(), part.version_size(), part.batch_size(), part.checksum_size()}) {
      if (size != count) refuse("has events that are not complete");
    }
    for (int i = 0; i < count; ++i) {
      if (part.role(i) >= all_.roles.size() || part.object(i) >= all_.objects.size() ||
          part.kind(i) > static_cast<std::uint32_t>(EventKind::change)) {
        refuse("names what it did not introduce");
      }
      all_.segments.back().events.push_back({.role = part.role(i),
                                             .object = part.object(i),
                                             .kind = static_cast<EventKind>(part.kind(i)),
                                             .version = part.version(i),
                                             .batch = part.batch(i),
                                             .checksum = part.checksum(i)});
    }
  }

  std::filesystem::path path_;
  RecordReader file_;
  Recording all_;
  int part_ = 0;
  bool open_ = false, ended_ = false;
};

}  // namespace

std::int64_t Recording::events() const {
  std::int64_t count = 0;
  for (const RecordedSegment& segment : segments) count += static_cast<std::int64_t>(segment.events.size());
  return count;
}

Recording load_recording(const std::filesystem::path& path) {
  return Loader(path).load();
}

}  // namespace rubato
