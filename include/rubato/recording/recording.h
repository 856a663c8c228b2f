#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "rubato/context/event.h"

namespace rubato {

/// What one role did, as it was recorded.
struct RecordedEvent {
  std::uint32_t role = 0, object = 0;  ///< indices into the names of the recording
  EventKind kind = EventKind::read;
  std::int64_t version = -1, batch = -1;
  std::uint64_t checksum = 0;
};

/// A part of the run between two checkpoints.
struct RecordedSegment {
  std::int64_t begin = 0, end = 0;  ///< steps of every replica
  std::vector<RecordedEvent> events;
};

struct Recording {
  std::vector<std::string> roles, objects;
  std::vector<RecordedSegment> segments;
  std::string weights_digest;  ///< at the end of the run

  std::int64_t events() const;
};

/// DataError, with the place, for a file that was cut, edited or is no recording.
Recording load_recording(const std::filesystem::path& path);

}  // namespace rubato
