#include "rubato/cost/timings.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "rubato/core/json_text.h"

namespace rubato {
namespace {

constexpr std::size_t most_samples = 2000;  // of a role

}  // namespace

void TimingsMeter::add(const std::string& role, const Event& event, double begin, double end) {
  if (event.kind == EventKind::take_batch && event.batch >= 0) {
    const std::lock_guard lock(mutex_);
    ++timings_.passes;
  }
  if (event.kind != EventKind::compute) return;
  const std::lock_guard lock(mutex_);
  const ComputeKind kind = event.computation.kind;
  if (kind == ComputeKind::backward) timings_.backward += end - begin;
  if (kind == ComputeKind::loss) timings_.loss += end - begin;
  if (kind != ComputeKind::forward) return;
  timings_.forward += end - begin;
  auto& samples = timings_.samples[role];
  if (samples.size() < most_samples) samples.push_back(end - begin);
}

Timings TimingsMeter::timings() const {
  const std::lock_guard lock(mutex_);
  return timings_;
}

std::string to_json(const Timings& timings) {
  return nlohmann::ordered_json{{"seconds", timings.seconds},
                                {"steps", timings.steps},
                                {"processors", timings.processors},
                                {"passes", timings.passes},
                                {"forward", timings.forward},
                                {"backward", timings.backward},
                                {"loss", timings.loss},
                                {"forward_seconds", timings.samples}}
             .dump(1) +
         "\n";
}

Timings timings_from_json(const std::string& text, const std::string& file_name) {
  const auto json = json_object(text, "timings " + file_name);
  try {
    return {.seconds = json.at("seconds"),
            .steps = json.at("steps"),
            .processors = json.at("processors"),
            .passes = json.at("passes"),
            .forward = json.at("forward"),
            .backward = json.at("backward"),
            .loss = json.value("loss", 0.0),
            .samples = json.at("forward_seconds")};
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("timings {}: {}", file_name, reason_of(error)));
  }
}

}  // namespace rubato
