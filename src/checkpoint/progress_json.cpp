#include "checkpoint/progress_json.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "rubato/core/error.h"
#include "rubato/core/json_text.h"
#include "rubato/model/digest.h"

namespace rubato {
namespace {

constexpr int format_version = 3;
constexpr const char* seal_key = "sha256";

constexpr double any = -std::numeric_limits<double>::infinity();
constexpr double most = 9007199254740992.0;                              // 2^53; beyond it numbers of 64 bits are no longer whole
constexpr double most_steps = 1099511627776.0, most_replicas = 1 << 20;  // whose product is a number of 64 bits

/// Calls `visit(key, field, lowest, highest)` for every number of `progress`, const or not.
template <class AnyProgress, class Visitor>
void visit_numbers(AnyProgress&& progress, Visitor&& visit) {
  visit("step", progress.step, 0, most_steps);
  visit("replicas", progress.replicas, 1, most_replicas);
  visit("seconds", progress.seconds, 0, most);
  visit("virtual_seconds", progress.virtual_seconds, 0, most);
  visit("seconds_to_target", progress.seconds_to_target, 0, most);
  visit("tested_step", progress.tested_step, -1, most_steps);
  visit("metrics_bytes", progress.metrics_bytes, 0, most);
  auto& meter = progress.meter;
  visit("steps_of_all", meter.now.steps, 0, most);
  visit("samples", meter.now.samples, 0, most);
  visit("loss", meter.now.loss, any, -any);
  visit("mean_epoch_loss", meter.now.epoch_loss, any, -any);
  visit("seconds_to_loss", meter.now.seconds_to_loss, 0, most);
  visit("target_loss", meter.now.target_loss, any, -any);
  visit("clock", meter.clock, any, most);
  visit("window_loss", meter.window_loss, any, -any);
  visit("window_begin", meter.window_begin, any, most);
  visit("window_steps", meter.window_steps, 0, most);
  visit("window_samples", meter.window_samples, 0, most);
  visit("epoch_loss", meter.epoch_loss, any, -any);
  visit("epoch_samples", meter.epoch_samples, 0, most);
}

struct NumberWriter {
  nlohmann::ordered_json& json;
  template <class T>
  void operator()(const char* key, const T& value, double, double) const {
    json[key] = value;
  }
  void operator()(const char* key, const std::optional<double>& value, double, double) const {
    if (value) json[key] = *value;
  }
};

/// Takes values out of one object, or says which is wrong.
class Reader {
 public:
  Reader(const nlohmann::ordered_json& json, const std::string& file) : json_(json), file_(file) {}

  [[noreturn]] void refuse(std::string_view key, const std::string& what) const {
    throw DataError(fmt::format("{} is damaged: '{}' must be {}", file_, key, what));
  }
  const nlohmann::ordered_json& at(const char* key) const {
    if (!json_.contains(key)) refuse(key, "there");
    return json_.at(key);
  }
  template <class T>
  T number(const nlohmann::ordered_json& value, std::string_view key, double low, double high) const {
    const bool fits = std::is_integral_v<T> ? value.is_number_integer() : value.is_number();
    const double held = fits ? value.get<double>() : 0;
    if (fits && std::isfinite(held) && held >= low && held <= high) return value.get<T>();
    refuse(key, fmt::format("{} from {} to {}", std::is_integral_v<T> ? "a whole number" : "a number", low, high));
  }
  template <class T>
  void operator()(const char* key, T& value, double low, double high) const {
    value = number<T>(at(key), key, low, high);
  }
  void operator()(const char* key, std::optional<double>& value, double low, double high) const {
    if (json_.contains(key)) value = number<double>(json_.at(key), key, low, high);
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) refuse(key, "text");
    return at(key).get<std::string>();
  }
  std::vector<StalenessCount> counts(const char* key) const {
    std::vector<StalenessCount> blocks;
    if (!json_.contains(key)) return blocks;
    const auto is_triple = [](const auto& block) { return block.is_array() && block.size() == 3; };
    if (!json_.at(key).is_array()) refuse(key, "a list");
    for (const auto& block : json_.at(key)) {
      if (!is_triple(block)) refuse(key, "a list of three numbers for each block");
      const auto count = [&](std::size_t i) { return number<std::int64_t>(block.at(i), key, 0, most); };
      blocks.push_back({count(0), count(1), count(2)});
    }
    return blocks;
  }
  Evaluation test() const {
    const auto& test = at("test");
    const auto value = [&](const char* key) {
      if (!test.is_object() || !test.contains(key)) refuse("test", "accuracy and loss");
      return test.at(key).is_null() ? std::optional<double>() : number<double>(test.at(key), key, any, -any);
    };
    return {value("accuracy"), value("loss").value_or(std::numeric_limits<double>::quiet_NaN())};
  }

 private:
  const nlohmann::ordered_json& json_;
  const std::string& file_;
};

nlohmann::ordered_json counts(const std::vector<StalenessCount>& blocks) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const StalenessCount& block : blocks) json.push_back({block.updates, block.sum, block.max});
  return json;
}

/// Of what is said, however it is laid out.
std::string digest_of(const nlohmann::ordered_json& json) {
  const std::string content = json.dump();
  Digest digest;
  digest.add_bytes(content.data(), content.size());
  return digest.hex();
}

/// What is said where there is no checksum: earlier versions said no more, so another name is a damaged one.
void refuse_unknown_keys(const nlohmann::ordered_json& json, const std::string& file) {
  Progress all;
  all.test.emplace();
  all.seconds_to_target = all.meter.now.seconds_to_loss = 0;
  auto known = to_json(all);
  known["files"] = nullptr;
  for (const auto& [key, value] : json.items()) {
    if (!known.contains(key)) throw DataError(fmt::format("{} is damaged: nothing is called '{}'", file, key));
  }
}

}  // namespace

nlohmann::ordered_json to_json(const Progress& progress) {
  nlohmann::ordered_json json = {{"format", format_version}};
  visit_numbers(progress, NumberWriter{json});
  if (progress.test) json["test"] = {{"accuracy", nullptr}, {"loss", progress.test->loss}};
  if (progress.test && progress.test->accuracy) json["test"]["accuracy"] = *progress.test->accuracy;
  json["staleness"] = counts(progress.staleness);
  json["centre_staleness"] = counts(progress.centre_staleness);
  json["data"] = progress.data;
  json["weights_digest"] = progress.weights_digest;
  return json;
}

Progress progress_from(const nlohmann::ordered_json& json, const std::string& file) {
  const Reader reader(json, file);
  Progress progress;
  visit_numbers(progress, reader);
  if (json.contains("test")) progress.test = reader.test();
  progress.staleness = reader.counts("staleness");
  progress.centre_staleness = reader.counts("centre_staleness");
  progress.data = reader.text("data");
  if (json.contains("weights_digest")) progress.weights_digest = reader.text("weights_digest");
  return progress;
}

std::string sealed(nlohmann::ordered_json json) {
  json = nlohmann::ordered_json::parse(json.dump());  // as it will be read: what is not finite is null
  json[seal_key] = digest_of(json);
  return json.dump(2) + "\n";
}

nlohmann::ordered_json unsealed(const std::string& text, const std::string& file) {
  auto json = json_object<nlohmann::ordered_json>(text, file);
  if (!json.contains("format") || json.at("format") != format_version) {
    throw DataError(fmt::format("{} has format {}, this rubato reads {}", file,
                                json.contains("format") ? json.at("format").dump() : "none", format_version));
  }
  if (!json.contains(seal_key)) {
    refuse_unknown_keys(json, file);
    return json;
  }
  const nlohmann::ordered_json said = json.at(seal_key);
  json.erase(seal_key);
  if (said != digest_of(json)) throw DataError(file + " is damaged (SHA-256 differs)");
  return json;
}

}  // namespace rubato
