#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "rubato/context/event.h"
#include "rubato/model/stage.h"
#include "rubato/replica/observer.h"

namespace rubato {

/// What a recorded run on threads took, for asking what another would take.
struct Timings {
  double seconds = 0;                                  ///< of training, tests left out
  std::int64_t steps = 0;                              ///< of each replica
  int processors = 1;                                  ///< roles that could compute at the same time
  std::int64_t passes = 0;                             ///< batches, of all replicas
  double forward = 0, backward = 0, loss = 0;          ///< seconds of all passes
  std::map<std::string, std::vector<double>> samples;  ///< seconds of the first forward passes of each role
};

std::string to_json(const Timings& timings);
/// DataError naming `file_name` and the reason.
Timings timings_from_json(const std::string& text, const std::string& file_name);

/// Takes the times of a run's passes down. Thread-safe.
class TimingsMeter final : public EventSink {
 public:
  void add(const std::string& role, const Event& event, double begin, double end) override;
  Timings timings() const;

 private:
  mutable std::mutex mutex_;
  Timings timings_;
};

}  // namespace rubato
