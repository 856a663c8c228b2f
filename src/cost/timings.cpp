#include "rubato/cost/timings.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "rubato/core/json_text.h"

namespace rubato {
namespace {

constexpr std::size_t most_samples = 2000;  // of a role

const char* key_of(Aside aside) {
  switch (aside) {
    case Aside::predict:
      return "predict";
    case Aside::learn:
      return "learn";
    case Aside::shrink:
      return "shrink";
  }
  return "?";
}

nlohmann::ordered_json json_of(const AsideTimes& times) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const Aside aside : asides) {
    const AsideTime& time = times.at(static_cast<std::size_t>(aside));
    if (time.count > 0) json[key_of(aside)] = {{"count", time.count}, {"seconds", time.seconds}};
  }
  return json;
}

AsideTimes aside_times_of(const nlohmann::json& json) {
  AsideTimes times;
  for (const Aside aside : asides) {
    if (!json.contains(key_of(aside))) continue;
    const auto& time = json.at(key_of(aside));
    times.at(static_cast<std::size_t>(aside)) = {time.at("count"), time.at("seconds")};
  }
  return times;
}

}  // namespace

std::optional<Aside> aside_of(ComputeKind kind) {
  switch (kind) {
    case ComputeKind::predict:
      return Aside::predict;
    case ComputeKind::learn:
      return Aside::learn;
    case ComputeKind::shrink:
      return Aside::shrink;
    default:
      return std::nullopt;
  }
}

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
  if (const auto aside = aside_of(kind)) {
    AsideTime& time = timings_.aside[role].at(static_cast<std::size_t>(*aside));
    ++time.count;
    time.seconds += end - begin;
  }
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
  nlohmann::ordered_json aside = nlohmann::ordered_json::object();
  for (const auto& [role, times] : timings.aside) aside[role] = json_of(times);
  return nlohmann::ordered_json{{"seconds", timings.seconds},
                                {"steps", timings.steps},
                                {"processors", timings.processors},
                                {"passes", timings.passes},
                                {"forward", timings.forward},
                                {"backward", timings.backward},
                                {"loss", timings.loss},
                                {"aside", aside},
                                {"forward_seconds", timings.samples}}
             .dump(1) +
         "\n";
}

Timings timings_from_json(const std::string& text, const std::string& file_name) {
  const auto json = json_object(text, "timings " + file_name);
  try {
    Timings timings{.seconds = json.at("seconds"),
                    .steps = json.at("steps"),
                    .processors = json.at("processors"),
                    .passes = json.at("passes"),
                    .forward = json.at("forward"),
                    .backward = json.at("backward"),
                    .loss = json.value("loss", 0.0),
                    .samples = json.at("forward_seconds")};
    if (json.contains("aside")) {
      for (const auto& [role, times] : json.at("aside").items()) timings.aside[role] = aside_times_of(times);
    }
    return timings;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("timings {}: {}", file_name, reason_of(error)));
  }
}

}  // namespace rubato
