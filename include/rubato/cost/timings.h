#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "rubato/context/event.h"
#include "rubato/model/stage.h"
#include "rubato/replica/observer.h"

namespace rubato {

/// Computations that belong to no block: of gradient models, of the shrinking of gradients.
enum class Aside { predict, learn, shrink };
inline constexpr std::array asides = {Aside::predict, Aside::learn, Aside::shrink};

/// The one that `kind` is; nothing for passes, losses and updates.
std::optional<Aside> aside_of(ComputeKind kind);

struct AsideTime {
  std::int64_t count = 0;
  double seconds = 0;  ///< of all together
  double mean() const { return count > 0 ? seconds / static_cast<double>(count) : 0; }
};
using AsideTimes = std::array<AsideTime, asides.size()>;  ///< by Aside

/// What a recorded run on threads took, for asking what another would take.
struct Timings {
  double seconds = 0;                                  ///< of training, tests left out
  std::int64_t steps = 0;                              ///< of each replica
  int processors = 1;                                  ///< roles that could compute at the same time
  std::int64_t passes = 0;                             ///< batches, of all replicas
  double forward = 0, backward = 0, loss = 0;          ///< seconds of all passes
  std::map<std::string, std::vector<double>> samples;  ///< seconds of the first forward passes of each role
  std::map<std::string, AsideTimes> aside;             ///< of each role that has any
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
