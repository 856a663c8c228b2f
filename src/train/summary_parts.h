#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "rubato/job/plan.h"
#include "rubato/observe/bias_probe.h"
#include "rubato/observe/trace_figures.h"

// Parts of summary.json.

namespace rubato {

/// Digest of everything that is trained on and tested with.
std::string digest_of(const DataSplit& data);
std::int64_t peak_rss_bytes();
/// On what the run was simulated; what was not given is left out.
nlohmann::ordered_json simulation_json(const RuntimeChoice& runtime);
/// How well the simulation of a recorded run does.
nlohmann::ordered_json what_if_json(const WhatIf& what_if);
/// Of what rubato was built, and from what.
nlohmann::ordered_json build_json();
void add_figures(nlohmann::ordered_json& json, const TraceFigures& figures, const WeightStore& store);
void add_bias(nlohmann::ordered_json& json, const BiasReport& bias);

}  // namespace rubato
