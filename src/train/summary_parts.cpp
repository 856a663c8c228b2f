#include "train/summary_parts.h"

#include <sys/resource.h>

#include <cstdint>
#include <string>
#include <utility>

#include "rubato/core/build_info.h"
#include "rubato/model/digest.h"

namespace rubato {

nlohmann::ordered_json simulation_json(const RuntimeChoice& runtime) {
  const PlatformChoice& p = runtime.platform;
  nlohmann::ordered_json json = {{"platform", p.platform}, {"cores", p.cores}, {"compute", runtime.compute}};
  for (const auto& [key, values] :
       {std::pair{"host-speed", &p.host_speeds}, {"straggler", &p.stragglers}, {"dies", &p.deaths}, {"joins", &p.arrivals}}) {
    if (!values->empty()) json[key] = *values;
  }
  for (const auto& [key, value] : {std::pair{"bandwidth", &p.bandwidth},
                                   {"latency", &p.latency},
                                   {"profile", &runtime.profile_file},
                                   {"block-costs", &runtime.block_costs}}) {
    if (!value->empty()) json[key] = *value;
  }
  if (p.loss > 0) json["loss"] = p.loss;
  if (runtime.profile_file.empty() && runtime.block_costs.empty()) json["device-gflops"] = *runtime.device_gflops;
  return json;
}

nlohmann::ordered_json what_if_json(const WhatIf& what_if) {
  return {{"recorded_seconds", what_if.recorded_seconds},
          {"recorded_steps", what_if.recorded_steps},
          {"predicted_seconds", what_if.predicted_seconds},
          {"error", what_if.error()}};
}

nlohmann::ordered_json build_json() {
  const BuildInfo& build = build_info();
  return {{"rubato", build.version}, {"libtorch", build.libtorch}, {"compiler", build.compiler},
          {"type", build.type},      {"platform", build.platform}, {"commit", build.commit}};
}

void add_figures(nlohmann::ordered_json& json, const TraceFigures& figures, const WeightStore& store) {
  json["waiting_share"] = figures.waiting_share;
  json["mean_age_seconds"] = figures.mean_age_seconds;
  for (const auto& [block, seconds] : figures.age_seconds) json["age_seconds"][store.block_name(block)] = seconds;
}

void add_bias(nlohmann::ordered_json& json, const BiasReport& bias) {
  json["bias"] = {{"probes", bias.probes},
                  {"mean", bias.mean_bias},
                  {"max", bias.max_bias},
                  {"gradient_norm", bias.max_gradient},
                  {"lipschitz", bias.lipschitz},
                  {"staleness", bias.max_staleness},
                  {"step_size", bias.step_size},
                  {"x", bias.x()},
                  {"bound", nullptr}};
  if (bias.bound()) json["bias"]["bound"] = *bias.bound();
}

std::string digest_of(const DataSplit& data) {
  Digest digest;
  for (const Dataset* part : {&data.train, &data.test}) {
    digest.add("inputs", part->inputs);
    digest.add("targets", part->targets);
    digest.add_bytes(part->vocabulary.data(), part->vocabulary.size());
  }
  return digest.hex();
}

std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace rubato
