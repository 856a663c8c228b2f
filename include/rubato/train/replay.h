#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "rubato/job/plan.h"

namespace rubato {

/// Where `--record` writes in a run folder.
inline constexpr const char* recording_file = "recording.rec";

struct ReplayResult {
  std::int64_t steps = 0;      ///< of every replica
  std::int64_t events = 0;     ///< reads, publications, batches and messages, each compared with the recording
  std::string weights_digest;  ///< of the replay, equal to the recorded one
};

/// Runs what `--record` recorded in the folder `run` again, on `runtime`: every role reads, publishes and receives in the
/// recorded order, so every publication has the same bits. Writes nothing. DataError when there is no whole recording, and when
/// anything differs: the sentence names the first thing that does.
ReplayResult replay(const std::filesystem::path& run, const RuntimeChoice& runtime = {});

}  // namespace rubato
