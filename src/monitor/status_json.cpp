#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "rubato/monitor/status.h"

namespace rubato {
namespace {

using Json = nlohmann::ordered_json;

// Each list of fields serves writing (const) and reading.
template <class Worker, class Visit>
void worker_fields(Worker& worker, Visit visit) {
  visit("rank", worker.rank);
  visit("stage", worker.stage);
  visit("host", worker.host);
  visit("pid", worker.pid);
  visit("incarnation", worker.incarnation);
  visit("state", worker.state);
  visit("step", worker.step);
  visit("steps_behind", worker.steps_behind);
  visit("samples", worker.samples);
  visit("samples_per_second", worker.samples_per_second);
  visit("loss", worker.loss);
  visit("staleness_mean", worker.staleness_mean);
  visit("staleness_max", worker.staleness_max);
  visit("waiting_seconds", worker.waiting_seconds);
  visit("waiting_share", worker.waiting_share);
  visit("bytes_sent", worker.bytes_sent);
  visit("bytes_received", worker.bytes_received);
  visit("exchanges", worker.exchanges);
  visit("exchanges_skipped", worker.exchanges_skipped);
  visit("silent_seconds", worker.silent_seconds);
  visit("longest_wait_seconds", worker.longest_wait_seconds);
}

template <class Coordinator, class Visit>
void coordinator_fields(Coordinator& coordinator, Visit visit) {
  visit("pid", coordinator.pid);
  visit("host", coordinator.host);
  visit("incarnation", coordinator.incarnation);
  visit("rebuilt_from", coordinator.rebuilt_from);
}

template <class Job, class Visit>
void job_fields(Job& job, Visit visit) {
  visit("time", job.time);
  visit("state", job.state);
  visit("run", job.run);
  visit("schedule", job.schedule);
  visit("coupling", job.coupling);
  visit("step", job.step);
  visit("total_steps", job.total_steps);
  visit("train_loss", job.train_loss);
  visit("test_accuracy", job.test_accuracy);
  visit("coordinator", job.coordinator);
  visit("deaths", job.deaths);
  visit("joins", job.joins);
  visit("refused", job.refused);
  visit("refused_reasons", job.refused_reasons);
  visit("last_refused", job.last_refused);
  visit("workers", job.workers);
}

struct StatusWriter {
  Json& json;

  template <class Value>
  void operator()(const char* key, const Value& value) const {
    json[key] = value;
  }
  void operator()(const char* key, const std::optional<double>& value) const { json[key] = value ? Json(*value) : Json(); }
  void operator()(const char* key, const CoordinatorStatus& coordinator) const {
    coordinator_fields(coordinator, StatusWriter{json[key]});
  }
  void operator()(const char* key, const std::vector<WorkerStatus>& workers) const {
    Json& list = json[key] = Json::array();
    for (const WorkerStatus& worker : workers) worker_fields(worker, StatusWriter{list.emplace_back()});
  }
};

/// Why a text is no status; `status_from_json` says of which file.
struct Unfit {
  std::string unreadable;
};

/// The library itself would turn 1.5 into 1 and 1e300 into anything.
template <class Whole>
Whole whole(const std::string& key, const Json& value) {
  if (!value.is_number_integer()) throw Unfit{key + " is not a whole number"};
  constexpr auto most = std::numeric_limits<Whole>::max();
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most)
                        : value.get<std::int64_t>() >= std::numeric_limits<Whole>::min() && value.get<std::int64_t>() <= most;
  if (!fits) throw Unfit{key + " is out of range"};
  return value.get<Whole>();
}

struct StatusReader {
  const Json& json;
  std::string place;  ///< in front of a key, for sentences: "worker 3: "

  std::string named(const char* key) const { return place + "'" + key + "'"; }
  const Json& at(const char* key) const {
    if (!json.is_object()) throw Unfit{place.empty() ? "it is not a JSON object" : place + "it is not an object"};
    const auto found = json.find(key);
    if (found == json.end()) throw Unfit{named(key) + " is missing"};
    return *found;
  }

  void operator()(const char* key, int& value) const { value = whole<int>(named(key), at(key)); }
  void operator()(const char* key, std::int64_t& value) const { value = whole<std::int64_t>(named(key), at(key)); }
  void operator()(const char* key, double& value) const {
    const Json& found = at(key);
    if (!found.is_number() && !found.is_null()) throw Unfit{named(key) + " is not a number"};
    value = found.is_null() ? std::numeric_limits<double>::quiet_NaN() : found.get<double>();
  }
  void operator()(const char* key, std::optional<double>& value) const {
    double number = 0;
    (*this)(key, number);
    value = at(key).is_null() ? std::nullopt : std::optional(number);
  }
  void operator()(const char* key, std::string& value) const {
    if (!at(key).is_string()) throw Unfit{named(key) + " is not a text"};
    value = at(key).get<std::string>();
  }
  void operator()(const char* key, std::map<std::string, std::int64_t>& value) const {
    if (!at(key).is_object()) throw Unfit{named(key) + " is not an object"};
    value.clear();
    for (const auto& [name, count] : at(key).items()) value[name] = whole<std::int64_t>(named(key), count);
  }
  void operator()(const char* key, CoordinatorStatus& coordinator) const {
    coordinator_fields(coordinator, StatusReader{at(key), "coordinator: "});
  }
  void operator()(const char* key, std::vector<WorkerStatus>& workers) const {
    if (!at(key).is_array()) throw Unfit{named(key) + " is not a list"};
    workers.clear();
    for (const Json& one : at(key)) {
      const std::string name = fmt::format("worker {} of the list: ", workers.size());
      worker_fields(workers.emplace_back(), StatusReader{one, name});
    }
  }
};

void check_state(const std::string& state, const std::vector<std::string>& known, const std::string& whose) {
  if (std::ranges::find(known, state) == known.end()) {
    throw Unfit{fmt::format("{} has the unknown state '{}'", whose, state)};
  }
}

/// What nlohmann says, without its "[json.exception.out_of_range.403] ".
std::string unreadable(const nlohmann::json::exception& error) {
  const std::string text = error.what();
  const std::size_t end = text.find("] ");
  return end == std::string::npos ? text : text.substr(end + 2);
}

}  // namespace

std::vector<std::string> job_states() {
  return {"waiting", "running", "done", "interrupted", "diverged", "failed"};
}

std::vector<std::string> worker_states() {
  return {"missing", "alive", "silent", "dead", "finished"};
}

std::string to_json(const JobStatus& status) {
  Json json;
  job_fields(status, StatusWriter{json});
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

JobStatus status_from_json(const std::string& text, const std::string& source) {
  const auto refuse = [&](const std::string& why) { return DataError(fmt::format("status {}: {}", source, why)); };
  try {
    const Json json = Json::parse(text);
    JobStatus status;
    job_fields(status, StatusReader{json, ""});
    check_state(status.state, job_states(), "the job");
    for (const WorkerStatus& worker : status.workers) {
      check_state(worker.state, worker_states(), fmt::format("worker {}", worker.rank));
    }
    return status;
  } catch (const Unfit& unfit) {
    throw refuse(unfit.unreadable);
  } catch (const nlohmann::json::exception& error) {
    throw refuse(unreadable(error));
  }
}

}  // namespace rubato
