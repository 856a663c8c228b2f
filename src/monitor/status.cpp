#include "rubato/monitor/status.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "rubato/core/error.h"

namespace rubato {
namespace {

constexpr double slow_share = 0.7;   // of the median rate of the workers alive
constexpr double stale_seconds = 5;  // the coordinator writes once a second

/// Peers choose some of the texts: a terminal must not obey them.
std::string printable(std::string text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c < 0x20 || c == 0x7f || c1) text[i] = '?';
    if (c1) text[++i] = '?';
  }
  return text;
}

std::string bytes_text(std::int64_t bytes) {
  constexpr std::array units = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  const int digits = unit == 0 || value >= 99.95 ? 0 : 1;
  return fmt::format("{:.{}f} {}", value, digits, units[unit]);
}

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::min(seconds, 1e15) + 0.5);
  return whole < 3600 ? fmt::format("{}:{:02} min", whole / 60, whole % 60)
                      : fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

std::string loss_text(const std::optional<double>& loss) {
  return loss ? fmt::format("{:.4f}", *loss) : "-";
}

/// Of the rates of workers alive; 0 when there is none.
double median_rate(const JobStatus& job) {
  std::vector<double> rates;
  for (const WorkerStatus& worker : job.workers) {
    if (worker.state == "alive" && std::isfinite(worker.samples_per_second)) rates.push_back(worker.samples_per_second);
  }
  if (rates.empty()) return 0;
  std::ranges::sort(rates);
  const std::size_t half = rates.size() / 2;
  return rates.size() % 2 == 1 ? rates[half] : (rates[half - 1] + rates[half]) / 2;
}

using Row = std::vector<std::string>;

Row titles(bool staged) {
  Row row = {"worker"};
  if (staged) row.emplace_back("stage");
  for (const char* title : {"host", "pid", "restarts", "state", "step", "behind", "samples/s", "loss", "stale mean/max",
                            "waiting", "longest wait", "sent", "received", "exchanges", "heard"}) {
    row.emplace_back(title);
  }
  return row;
}

std::string exchanges_text(const WorkerStatus& worker) {
  return worker.exchanges_skipped == 0 ? std::to_string(worker.exchanges)
                                       : fmt::format("{} ({} skipped)", worker.exchanges, worker.exchanges_skipped);
}

Row row_of(const WorkerStatus& w, bool staged, double median) {
  Row row = {std::to_string(w.rank)};
  if (staged) row.push_back(w.stage < 0 ? "-" : std::to_string(w.stage));
  const Row rest = {w.host.empty() ? "-" : printable(w.host),
                    w.pid == 0 ? "-" : std::to_string(w.pid),
                    std::to_string(w.incarnation),
                    w.state,
                    std::to_string(w.step),
                    std::to_string(w.steps_behind),
                    fmt::format("{:.1f}", w.samples_per_second),
                    loss_text(w.loss),
                    fmt::format("{:.1f}/{:g}", w.staleness_mean, w.staleness_max),
                    fmt::format("{:.1f} %", 100 * w.waiting_share),
                    duration_text(w.longest_wait_seconds),
                    bytes_text(w.bytes_sent),
                    bytes_text(w.bytes_received),
                    exchanges_text(w),
                    w.state == "missing" ? "never" : duration_text(w.silent_seconds) + " ago"};
  row.insert(row.end(), rest.begin(), rest.end());
  if (w.state == "alive" && w.samples_per_second < slow_share * median) row.emplace_back("slow");
  return row;
}

/// Columns as wide as their widest cell; two spaces between them.
std::string aligned(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) text += fmt::format("{}{:>{}}", i == 0 ? "" : "  ", row[i], widths[i]);
    text += "\n";
  }
  return text;
}

std::string workers_text(const JobStatus& job) {
  if (job.workers.empty()) return "no worker has come yet\n";
  const bool staged = std::ranges::any_of(job.workers, [](const WorkerStatus& worker) { return worker.stage >= 0; });
  const double median = median_rate(job);
  std::vector<Row> rows = {titles(staged)};
  for (const WorkerStatus& worker : job.workers) rows.push_back(row_of(worker, staged, median));
  return aligned(rows);
}

bool is_live(const JobStatus& job) {
  return job.state == "running" || job.state == "waiting";
}

std::string header(const JobStatus& job, double age) {
  std::string text = fmt::format("{}  step {}/{}", job.state, job.step, job.total_steps);
  if (job.total_steps > 0) {
    text += fmt::format(" ({:.1f} %)", 100 * static_cast<double>(job.step) / static_cast<double>(job.total_steps));
  }
  text += "  loss " + loss_text(job.train_loss);
  if (job.test_accuracy) text += fmt::format("  accuracy {:.2f} %", *job.test_accuracy);
  return fmt::format("{}  {}, {}  as of {} ago\n", text, printable(job.schedule), printable(job.coupling), duration_text(age));
}

std::string warning(const JobStatus& job, double age) {
  if (!is_live(job) || !(age > stale_seconds)) return "";
  return fmt::format(
      "warning: the coordinator has not written for {:.0f} s: it may be dead; `rubato launch --attach {}` watches the job "
      "again\n",
      age, job.run.empty() ? "RUN" : printable(job.run));
}

std::string coordinator_text(const CoordinatorStatus& coordinator) {
  std::string text =
      fmt::format("coordinator: {}, process {}", coordinator.host.empty() ? "-" : printable(coordinator.host), coordinator.pid);
  if (coordinator.incarnation > 0) text += fmt::format(", restarts {}", coordinator.incarnation);
  if (!coordinator.rebuilt_from.empty()) text += ", rebuilt from " + printable(coordinator.rebuilt_from);
  return text + "\n";
}

std::string events_text(const JobStatus& job) {
  std::string text = fmt::format("deaths {}, joins {}, refused connections {}", job.deaths, job.joins, job.refused);
  std::vector<std::string> reasons;
  for (const auto& [reason, count] : job.refused_reasons) reasons.push_back(fmt::format("{}: {}", printable(reason), count));
  if (!reasons.empty()) text += " (" + join(reasons) + ")";
  if (!job.last_refused.empty()) text += "; the last one: " + printable(job.last_refused);
  return text + "\n";
}

}  // namespace

std::string status_table(const JobStatus& status, double now_unix_seconds) {
  const double age = std::max(0.0, now_unix_seconds - status.time);  // clocks of two machines may differ
  return header(status, age) + warning(status, age) + "\n" + workers_text(status) + "\n" + coordinator_text(status.coordinator) +
         events_text(status);
}

}  // namespace rubato
