#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "rubato/monitor/status.h"

namespace rubato {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

/// Peers choose some of the texts: what is not UTF-8 would make Prometheus reject the whole page.
std::string valid_utf8(const std::string& text) {
  const std::string quoted = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return nlohmann::json::parse(quoted).get<std::string>();
}

std::string escaped(const std::string& value) {
  std::string text;
  for (const char c : valid_utf8(value)) {
    if (c == '\n') {
      text += "\\n";
    } else {
      if (c == '\\' || c == '"') text += '\\';
      text += c;
    }
  }
  return text;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return value == std::floor(value) && std::abs(value) < 1e15 ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

/// All samples of a metric follow its head, as the format demands.
class Page {
 public:
  void head(const std::string& name, const char* type, const std::string& help) {
    name_ = "rubato_" + name;
    fmt::format_to(std::back_inserter(text_), "# HELP {} {}\n# TYPE {} {}\n", name_, help, name_, type);
  }
  void sample(const Labels& labels, double value) {
    text_ += name_;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      fmt::format_to(std::back_inserter(text_), "{}{}=\"{}\"", i == 0 ? "{" : ",", labels[i].first, escaped(labels[i].second));
    }
    text_ += (labels.empty() ? " " : "} ") + number(value) + "\n";
  }
  void single(const std::string& name, const char* type, const std::string& help, double value) {
    head(name, type, help);
    sample({}, value);
  }
  std::string text() && { return std::move(text_); }

 private:
  std::string name_, text_;
};

struct WorkerMetric {
  const char* name;
  const char* type;
  const char* help;
  double (*value)(const WorkerStatus&);
};

const WorkerMetric worker_metrics[] = {
    {"worker_step", "gauge", "Step of the worker; goes back when it is started again.",
     [](const WorkerStatus& w) { return static_cast<double>(w.step); }},
    {"worker_steps_behind", "gauge", "Steps that the furthest worker is ahead.",
     [](const WorkerStatus& w) { return static_cast<double>(w.steps_behind); }},
    {"worker_incarnation", "gauge", "How often the worker has been started again.",
     [](const WorkerStatus& w) { return static_cast<double>(w.incarnation); }},
    {"worker_samples_total", "counter", "Samples trained on.",
     [](const WorkerStatus& w) { return static_cast<double>(w.samples); }},
    {"worker_samples_per_second", "gauge", "Samples trained on in a second.",
     [](const WorkerStatus& w) { return w.samples_per_second; }},
    {"worker_staleness_mean", "gauge", "Mean staleness of gradients, in updates.",
     [](const WorkerStatus& w) { return w.staleness_mean; }},
    {"worker_staleness_max", "gauge", "Largest staleness of a gradient over all blocks, in updates.",
     [](const WorkerStatus& w) { return w.staleness_max; }},
    {"worker_waiting_seconds_total", "counter", "Time that roles waited for other processes.",
     [](const WorkerStatus& w) { return w.waiting_seconds; }},
    {"worker_waiting_ratio", "gauge", "Share of the time since its start that the worker waited for other processes.",
     [](const WorkerStatus& w) { return w.waiting_share; }},
    {"worker_longest_wait_seconds", "gauge", "Longest single wait of a role for another process.",
     [](const WorkerStatus& w) { return w.longest_wait_seconds; }},
    {"worker_sent_bytes_total", "counter", "Bytes sent to other processes.",
     [](const WorkerStatus& w) { return static_cast<double>(w.bytes_sent); }},
    {"worker_received_bytes_total", "counter", "Bytes received from other processes.",
     [](const WorkerStatus& w) { return static_cast<double>(w.bytes_received); }},
    {"worker_exchanges_total", "counter", "Exchanges of weights with other processes.",
     [](const WorkerStatus& w) { return static_cast<double>(w.exchanges); }},
    {"worker_exchanges_skipped_total", "counter", "Exchanges skipped because the centre was away.",
     [](const WorkerStatus& w) { return static_cast<double>(w.exchanges_skipped); }},
    {"worker_silent_seconds", "gauge", "Time since the worker was last heard.",
     [](const WorkerStatus& w) { return w.silent_seconds; }},
};

Labels labels_of(const WorkerStatus& worker) {
  return {{"rank", std::to_string(worker.rank)}, {"host", worker.host}, {"stage", std::to_string(worker.stage)}};
}

/// One sample for each state there is: 1 for the present one.
void add_states(Page& page, Labels labels, const std::vector<std::string>& states, const std::string& present) {
  labels.emplace_back("state", "");
  for (const std::string& state : states) {
    labels.back().second = state;
    page.sample(labels, state == present ? 1 : 0);
  }
}

void add_job(Page& page, const JobStatus& job) {
  page.head("job_info", "gauge", "What the job runs; always 1.");
  page.sample({{"run", job.run}, {"schedule", job.schedule}, {"coupling", job.coupling}}, 1);
  page.head("job_state", "gauge", "1 for the state the job is in.");
  add_states(page, {}, job_states(), job.state);
  page.single("status_timestamp_seconds", "gauge", "Unix time when the coordinator last wrote its status.", job.time);
  page.single("job_step", "gauge", "Least step of the workers alive.", static_cast<double>(job.step));
  page.single("job_target_steps", "gauge", "Steps after which the job is done.", static_cast<double>(job.total_steps));
  if (job.train_loss) page.single("job_train_loss", "gauge", "Training loss.", *job.train_loss);
  if (job.test_accuracy) {
    page.single("job_test_accuracy_ratio", "gauge", "Share of test predictions equal to the target.", *job.test_accuracy / 100);
  }
}

void add_events(Page& page, const JobStatus& job) {
  page.head("coordinator_info", "gauge", "The process that holds the centre; always 1.");
  page.sample({{"host", job.coordinator.host},
               {"pid", std::to_string(job.coordinator.pid)},
               {"rebuilt_from", job.coordinator.rebuilt_from}},
              1);
  page.single("coordinator_incarnation", "gauge", "How often the coordinator has been started again.",
              job.coordinator.incarnation);
  page.single("deaths_total", "counter", "Processes that died.", static_cast<double>(job.deaths));
  page.single("joins_total", "counter", "Processes that joined again.", static_cast<double>(job.joins));
  page.single("refused_connections_total", "counter", "Connections turned away.", static_cast<double>(job.refused));
  if (job.refused_reasons.empty()) return;
  page.head("refused_connections_by_reason_total", "counter", "Connections turned away, for each reason.");
  for (const auto& [reason, count] : job.refused_reasons) page.sample({{"reason", reason}}, static_cast<double>(count));
}

void add_workers(Page& page, const std::vector<WorkerStatus>& workers) {
  page.head("worker_state", "gauge", "1 for the state the worker is in.");
  for (const WorkerStatus& worker : workers) add_states(page, labels_of(worker), worker_states(), worker.state);
  for (const WorkerMetric& metric : worker_metrics) {
    page.head(metric.name, metric.type, metric.help);
    for (const WorkerStatus& worker : workers) page.sample(labels_of(worker), metric.value(worker));
  }
  page.head("worker_loss", "gauge", "Training loss of the worker.");
  for (const WorkerStatus& worker : workers) {
    if (worker.loss) page.sample(labels_of(worker), *worker.loss);
  }
}

}  // namespace

std::string prometheus_text(const JobStatus& status) {
  Page page;
  add_job(page, status);
  add_events(page, status);
  if (!status.workers.empty()) add_workers(page, status.workers);
  return std::move(page).text();
}

}  // namespace rubato
