#include "train/run_start.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "rubato/core/error.h"
#include "rubato/io/files.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

const std::set<std::string>& files_of_runs() {
  static const std::set<std::string> names = {"config.toml",  "metrics.jsonl", "summary.json",  "profile.json",
                                              "timings.json", "recording.rec", "status.json",   "job.json",
                                              "keys",         "trace.json",    "transcript.txt"};
  return names;
}

bool is_of_a_run(const fs::path& entry) {
  const std::string name = entry.filename().string();
  return name.starts_with(".") || name == "checkpoint" || files_of_runs().contains(name) ||
         name.starts_with("events.out.tfevents.") || name.starts_with("worker-") || entry.extension() == ".log" ||
         entry.extension() == ".tmp";
}

/// A whole number that is not negative; 0 where there is none.
std::int64_t count_in(const nlohmann::json& json, const char* key) {
  const bool there = json.contains(key) && json.at(key).is_number_unsigned();
  return there ? static_cast<std::int64_t>(std::min<std::uint64_t>(json.at(key).get<std::uint64_t>(), INT64_MAX)) : 0;
}

}  // namespace

void refuse_foreign_folder(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (is_of_a_run(entry.path())) continue;
    throw UsageError(fmt::format("--run-dir {} is a folder with other things in it, {} for one: name one that is new, or empty",
                                 folder.string(), entry.path().filename().string()));
  }
}

void check_names_are_free(const fs::path& folder) {
  std::error_code ignored;
  const auto check = [&](const fs::path& file) {
    if (!fs::is_directory(file, ignored)) return;
    throw DataError(file.string() + " is a folder, where the run writes a file: remove it, or move it away");
  };
  for (const std::string& name : files_of_runs()) check(folder / name);
  for (const fs::path& name : {fs::path(".lock"), fs::path("checkpoint") / "latest"}) check(folder / name);
}

void check_nothing_is_lost(const fs::path& folder, const CheckpointFolder::Found* found) {
  const fs::path file = folder / "summary.json";
  if (!fs::exists(file)) return;
  const auto json = nlohmann::json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("status")) return;
  const bool has_ended = json.at("status") == "done" || json.at("status") == "interrupted";  // both write a checkpoint
  const std::int64_t steps = count_in(json, "steps"), replicas = std::max<std::int64_t>(1, count_in(json, "replicas"));
  const auto batches = static_cast<double>(steps) * static_cast<double>(replicas);
  const double saved = found == nullptr ? 0 : static_cast<double>(found->progress.step) * found->progress.replicas;
  if (!has_ended || saved + static_cast<double>(replicas) > batches) return;
  throw DataError(fmt::format(
      "--resume {}: by its summary.json the run came to batch {}, and {}: put the checkpoint back, or remove summary.json to "
      "begin there and give up its figures",
      folder.string(), steps,
      found == nullptr ? "there is no checkpoint" : fmt::format("its newest checkpoint is of batch {}", found->progress.step)));
}

std::vector<std::string> delays_of_nobody(const Plan& plan, const std::vector<Role>& roles) {
  std::vector<std::string> names, sentences;
  for (const Role& role : roles) names.push_back(role.name);
  for (std::size_t i = 0; i < plan.roles.delays.size(); ++i) {
    if (std::ranges::find(names, plan.roles.delays[i].role) != names.end()) continue;
    std::vector<std::string> first(names.begin(),
                                   names.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(8, names.size())));
    if (first.size() < names.size()) first.emplace_back("...");
    sentences.push_back(
        fmt::format("--inject-delay {} delays nobody: the roles of this run are {}", plan.options.inject_delay[i], join(first)));
  }
  return sentences;
}

}  // namespace rubato
