#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rubato {

enum class EventKind { take_batch, read, publish, publish_buffers, send, receive, compute, all_reduce, sleep, leave, change };

/// Lower-case word used in transcripts and traces: "take", "read", "publish", ...
const char* to_string(EventKind kind);

/// What a role computes: what delays, costs and figures go by.
enum class ComputeKind {
  forward,
  loss,
  backward,
  update,
  replay,   ///< the forward pass again, of a pass that was not kept
  predict,  ///< an error gradient, by a gradient model
  learn,    ///< a gradient model, from the true one
  shrink,   ///< an error gradient
  probe,    ///< of a measurement; not part of training
  other,
};

/// A piece of work: of a whole batch, or of one of its micro-batches.
struct Computation {
  ComputeKind kind = ComputeKind::other;
  int micro_batch = -1;  ///< -1: the whole batch
  // NOLINTNEXTLINE(google-explicit-constructor): a kind is the usual case
  Computation(ComputeKind kind_ = ComputeKind::other, int micro_batch_ = -1) : kind(kind_), micro_batch(micro_batch_) {}
};

/// Lower-case words used in transcripts and traces: "forward", "forward micro-batch 3".
std::string to_string(const Computation& computation);

/// One thing that a role did to the outside world. Fields that do not apply stay at -1 or empty.
struct Event {
  EventKind kind;
  int block = -1;                ///< read, publish
  std::int64_t version = -1;     ///< read, publish: version of the block's weights
  std::int64_t staleness = -1;   ///< publish: version before it minus version at which the gradient was evaluated
  std::int64_t batch = -1;       ///< take, send, receive, compute
  Computation computation = {};  ///< compute
  std::string what = {};         ///< send, receive: name of the channel; all_reduce, leave: the group; change: the thing;
                                 ///< compute: to_string of the computation
  std::string of = {};           ///< take, read, publish: name of the store or source ("r0", "centre")
  std::uint64_t checksum = 0;    ///< publish: of what is published, where somebody compares it; else 0
};

/// Receives events. Called from any role, one call at a time per role; implementations synchronise themselves.
class EventSink {
 public:
  virtual ~EventSink() = default;
  /// `begin` and `end` in seconds of the runtime's clock; equal for events without duration.
  virtual void add(const std::string& role, const Event& event, double begin, double end) = 0;
};

/// Passes every event on to several sinks.
class EventSinks final : public EventSink {
 public:
  /// Not owned; before the first event.
  void add(EventSink* sink) { sinks_.push_back(sink); }
  bool empty() const { return sinks_.empty(); }
  void add(const std::string& role, const Event& event, double begin, double end) override {
    for (EventSink* sink : sinks_) sink->add(role, event, begin, end);
  }

 private:
  std::vector<EventSink*> sinks_;
};

}  // namespace rubato
