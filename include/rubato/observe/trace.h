#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "rubato/context/event.h"

namespace rubato {

/// Keeps events in memory (the first `limit` of them) and writes them as text or as a Chrome trace. Thread-safe.
class Trace final : public EventSink {
 public:
  explicit Trace(std::size_t limit = 1'000'000) : limit_(limit) {}
  void add(const std::string& role, const Event& event, double begin, double end) override;

  /// One line per event, in order of arrival: "0.003000  ddg-1  publish block 2 version 1 staleness 0 batch 0". In virtual
  /// time the same run gives the same text.
  std::string transcript() const;
  /// JSON for chrome://tracing and Perfetto: one row per role.
  std::string chrome_json() const;
  /// Copy of the events of one kind, in order of arrival.
  struct Entry {
    std::string role;
    Event event;
    double begin, end;
  };
  std::vector<Entry> entries() const;

 private:
  std::size_t limit_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

}  // namespace rubato
