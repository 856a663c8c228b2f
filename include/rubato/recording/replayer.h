#pragma once

#include <memory>
#include <string>

#include "rubato/context/order.h"
#include "rubato/recording/recording.h"

namespace rubato {

/// Makes roles act in the order of a recording and compares what they do with it. Events come from any role; the other members
/// are called between segments.
class Replayer final : public Order {
 public:
  explicit Replayer(Recording recording);
  ~Replayer() override;

  const Recording& recording() const { return recording_; }

  bool waits() const override { return true; }
  bool may_act(const std::string& role, const Event& event) override;
  std::string next_to_act(const Event& event) override;
  /// DataError names the role, the thing, the version and the step where the replay first differs.
  void act(const std::string& role, Event& event, FunctionRef<void()> action) override;

  void begin_segment(std::size_t index);
  /// DataError when the recording has events of this segment that nobody reported.
  void end_segment();

 private:
  struct State;
  Recording recording_;
  std::unique_ptr<State> state_;
};

}  // namespace rubato
