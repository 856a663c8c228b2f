#include "rubato/runtimes/platform.h"

#include <cmath>
#include <map>

#include "rubato/core/error.h"
#include "rubato/core/numbers.h"

namespace rubato {
namespace {

struct Unit {
  const char* name;
  double factor;
};

/// A number at least 0 with one of `units`, the longest name that fits.
double with_unit(const std::string& flag, const std::string& text, const std::vector<Unit>& units, const char* example) {
  for (const Unit& unit : units) {
    if (!text.ends_with(unit.name)) continue;
    double value = 0;
    const std::string number = text.substr(0, text.size() - std::string(unit.name).size());
    if (read_number(number, value) && std::isfinite(value) && value >= 0) return value * unit.factor;
    break;
  }
  std::vector<std::string> names;
  for (const Unit& unit : units) names.push_back(unit.name);
  throw UsageError(flag + " '" + text + "' is no number >= 0 with a unit (" + join(names) + "), for example " + example);
}

// Sources of the numbers of presets.
//   Processor cores: 50 GFLOPS, about half of what one core with two 256-bit units for multiply-adds has at 3 GHz (32 float32
//     operations per cycle: Intel since Haswell, AMD since Zen 2). 100 Gb/s is EDR InfiniBand or 100 GbE, 1 Gb/s is 1000BASE-T.
//   A100 SXM 80 GB: 156 TFLOPS TF32, 312 TFLOPS bfloat16, both dense; NVLink 3, 600 GB/s of both directions together ("NVIDIA
//   A100
//     Tensor Core GPU", data sheet of June 2021).
//   H100 SXM 80 GB: 494.7 TFLOPS TF32, 989.4 TFLOPS bfloat16, both dense; NVLink 4, 900 GB/s of both directions together ("NVIDIA
//     H100 Tensor Core GPU Architecture", 2022, table 2).
//   float32 stands for TF32, which PyTorch lets convolutions use. The start of a message takes 2 us, as long as a kernel's
//   launch:
//     an assumption.

/// What training reaches of the peak. ResNet-50 v1.5 on one A100 80 GB in NVIDIA's DeepLearningExamples (PyTorch
/// container 21.03): 938 images/s in TF32 and 2,470 in mixed precision; at 24.6 GFLOP an image, forward and backward, that is 15%
/// and 19% of the peak.
constexpr double reached_share_of_peak = 0.17;

SimulatedPlatform gpus(double tf32_tflops, double bf16_tflops, double nvlink_gigabytes_both_ways) {
  return {.operations_per_second = tf32_tflops * 1e12 * reached_share_of_peak,
          .bf16_operations_per_second = bf16_tflops * 1e12 * reached_share_of_peak,
          .link_bytes_per_second = nvlink_gigabytes_both_ways * 1e9 / 2,
          .link_latency_seconds = 2e-6};
}

const std::map<std::string, SimulatedPlatform>& presets() {
  static const std::map<std::string, SimulatedPlatform> table = {
      {"uniform", {}},
      {"gpus", gpus(156, 312, 600)},
      {"a100", gpus(156, 312, 600)},
      {"h100", gpus(494.7, 989.4, 900)},
      {"lan-1g", {.link_bytes_per_second = 125e6, .link_latency_seconds = 50e-6}},
      {"wan", {.link_bytes_per_second = 12.5e6, .link_latency_seconds = 30e-3}},
      {"mixed", {.speeds = {1, 0.75, 0.5, 0.25}, .link_bytes_per_second = 125e6, .link_latency_seconds = 50e-6}}};
  return table;
}

SimulatedPlatform preset(const std::string& text) {
  std::vector<std::string> names;
  for (const auto& [name, platform] : presets()) {
    names.push_back(name + ":N");
    if (!text.starts_with(name + ":")) continue;
    SimulatedPlatform made = platform;
    if (read_number(text.substr(name.size() + 1), made.hosts) && made.hosts >= 1) return made;
  }
  throw UsageError("--platform '" + text + "' is neither a preset (" + join(names) +
                   ") with N >= 1 hosts nor a SimGrid file that ends in .xml, for example uniform:2");
}

/// "HOST:REST"; HOST is the number of a host.
std::pair<int, std::string> host_and_rest(const std::string& flag, const std::string& text, const char* form) {
  const std::size_t colon = text.find(':');
  std::pair<int, std::string> parts;
  if (colon == std::string::npos || !read_number(std::string_view(text).substr(0, colon), parts.first) || parts.first < 0) {
    throw UsageError(flag + " '" + text + "' is not " + form);
  }
  parts.second = text.substr(colon + 1);
  return parts;
}

void set_speed(SimulatedPlatform& platform, const std::string& text) {
  constexpr const char* form = "HOST:FACTOR with a factor above 0, for example 3:0.5";
  const auto [host, rest] = host_and_rest("--host-speed", text, form);
  double factor = 0;
  if (!read_number(rest, factor) || !std::isfinite(factor) || factor <= 0) {
    throw UsageError("--host-speed '" + text + "' is not " + form);
  }
  if (!platform.file.empty()) throw UsageError("--host-speed with a platform file: give the speeds in " + platform.file);
  if (host >= platform.hosts) {
    throw UsageError("--host-speed '" + text + "': the platform has " + std::to_string(platform.hosts) + " hosts, 0 to " +
                     std::to_string(platform.hosts - 1));
  }
  std::vector<double> speeds;
  for (int i = 0; i < platform.hosts; ++i)
    speeds.push_back(platform.speeds[static_cast<std::size_t>(i) % platform.speeds.size()]);
  speeds[static_cast<std::size_t>(host)] *= factor;
  platform.speeds = speeds;
}

Straggler parse_straggler(const std::string& text) {
  constexpr const char* form = "HOST:KIND:TIME with KIND fixed, random or bursty, for example 0:random:50ms";
  const auto [host, rest] = host_and_rest("--straggler", text, form);
  const std::size_t colon = rest.find(':');
  const std::string kind = rest.substr(0, colon);
  static const std::map<std::string, Straggler::Kind> kinds = {
      {"fixed", Straggler::Kind::fixed}, {"random", Straggler::Kind::random}, {"bursty", Straggler::Kind::bursty}};
  if (colon == std::string::npos || !kinds.contains(kind)) throw UsageError("--straggler '" + text + "' is not " + form);
  return {.host = host, .kind = kinds.at(kind), .seconds = parse_seconds("--straggler", rest.substr(colon + 1))};
}

Absence parse_absence(const std::string& flag, const std::string& text, bool dies) {
  const auto [host, rest] = host_and_rest(flag, text, "HOST:TIME, for example 2:30s");
  return {.host = host, .dies = dies, .seconds = parse_seconds(flag, rest)};
}

}  // namespace

double parse_seconds(const std::string& flag, const std::string& text) {
  return with_unit(flag, text, {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"s", 1}, {"m", 60}}, "50ms");
}

double parse_rate(const std::string& flag, const std::string& text) {
  const double rate =
      with_unit(flag, text,
                {{"Gbps", 1e9 / 8}, {"Mbps", 1e6 / 8}, {"Kbps", 1e3 / 8}, {"GBps", 1e9}, {"MBps", 1e6}, {"KBps", 1e3}}, "1Gbps");
  if (rate <= 0) throw UsageError(flag + " '" + text + "' must be above 0");
  return rate;
}

SimulatedPlatform parse_platform(const PlatformChoice& choice) {
  SimulatedPlatform platform;
  if (choice.platform.ends_with(".xml")) {
    platform.file = choice.platform;
    if (!choice.bandwidth.empty() || !choice.latency.empty()) {
      throw UsageError("--bandwidth and --latency with a platform file: give them in " + platform.file);
    }
  } else {
    platform = preset(choice.platform);
  }
  if (!choice.bandwidth.empty()) platform.link_bytes_per_second = parse_rate("--bandwidth", choice.bandwidth);
  if (!choice.latency.empty()) platform.link_latency_seconds = parse_seconds("--latency", choice.latency);
  for (const std::string& text : choice.host_speeds) set_speed(platform, text);
  for (const std::string& text : choice.stragglers) platform.stragglers.push_back(parse_straggler(text));
  for (const std::string& text : choice.deaths) platform.absences.push_back(parse_absence("--dies", text, true));
  for (const std::string& text : choice.arrivals) platform.absences.push_back(parse_absence("--joins", text, false));
  if (choice.cores < 1) throw UsageError("--cores " + std::to_string(choice.cores) + " must be at least 1");
  if (choice.cores > 1 && !platform.file.empty())
    throw UsageError("--cores with a platform file: give the cores in " + platform.file);
  platform.cores_per_host = choice.cores;
  if (!(choice.loss >= 0 && choice.loss < 1)) throw UsageError("--loss must be at least 0 and below 1: a probability");
  platform.loss = choice.loss;
  return platform;
}

}  // namespace rubato
