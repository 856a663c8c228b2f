#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "rubato/io/record_file.h"

namespace rubato {

/// Scalars for TensorBoard: a TFRecord file of Event messages. Not thread-safe.
class EventFile {
 public:
  /// Creates `events.out.tfevents.*` in `folder`. DataError when it cannot.
  explicit EventFile(const std::filesystem::path& folder);
  void scalar(const std::string& tag, std::int64_t step, double value);

 private:
  RecordWriter file_;
};

}  // namespace rubato
