#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "rubato/context/order.h"

namespace rubato {

/// Takes down in which order the roles of a run act. Events come from any role; the other members are called between segments.
class Recorder final : public Order {
 public:
  /// DataError when `path` cannot be written.
  explicit Recorder(const std::filesystem::path& path);
  ~Recorder() override;

  bool waits() const override { return false; }
  bool may_act(const std::string&, const Event&) override { return true; }
  void act(const std::string& role, Event& event, FunctionRef<void()> action) override;

  void begin_segment(std::int64_t step);
  /// `step`: how far every replica came.
  void end_segment(std::int64_t step);
  /// Nothing more comes. A recording without this is refused by the replayer.
  void finish(const std::string& weights_digest);
  /// Whether anything could not be written.
  bool failed() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rubato
