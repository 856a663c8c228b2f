#include "rubato/observe/trace.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

namespace rubato {

void Trace::add(const std::string& role, const Event& event, double begin, double end) {
  const std::lock_guard lock(mutex_);
  if (entries_.size() < limit_) entries_.push_back({role, event, begin, end});
}

std::vector<Trace::Entry> Trace::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

std::string Trace::transcript() const {
  std::string text;
  for (const Entry& entry : entries()) {
    const Event& event = entry.event;
    text += fmt::format("{:.6f}  {:<12} {}", entry.end, entry.role, to_string(event.kind));
    if (!event.what.empty()) text += " " + event.what;
    if (event.block >= 0) text += fmt::format(" block {}", event.block);
    if (event.version >= 0) text += fmt::format(" version {}", event.version);
    if (event.staleness >= 0) text += fmt::format(" staleness {}", event.staleness);
    if (event.batch >= 0) text += fmt::format(" batch {}", event.batch);
    if (event.kind == EventKind::compute) text += fmt::format(" since {:.6f}", entry.begin);
    text += "\n";
  }
  return text;
}

std::string Trace::chrome_json() const {
  auto events = nlohmann::ordered_json::array();
  std::map<std::string, int> rows;
  for (const Entry& entry : entries()) {
    const auto [row, is_new] = rows.emplace(entry.role, static_cast<int>(rows.size()));
    if (is_new) {
      events.push_back(
          {{"name", "thread_name"}, {"ph", "M"}, {"pid", 1}, {"tid", row->second}, {"args", {{"name", entry.role}}}});
    }
    const Event& event = entry.event;
    const std::string name = event.what.empty() ? to_string(event.kind) : std::string(to_string(event.kind)) + " " + event.what;
    nlohmann::ordered_json args;
    if (event.block >= 0) args["block"] = event.block;
    if (event.version >= 0) args["version"] = event.version;
    if (event.staleness >= 0) args["staleness"] = event.staleness;
    if (event.batch >= 0) args["batch"] = event.batch;
    const bool span = entry.end > entry.begin;
    nlohmann::ordered_json json = {
        {"name", name}, {"ph", span ? "X" : "i"}, {"pid", 1}, {"tid", row->second}, {"ts", entry.begin * 1e6}};
    if (span) {
      json["dur"] = (entry.end - entry.begin) * 1e6;
    } else {
      json["s"] = "t";
    }
    json["args"] = args;
    events.push_back(std::move(json));
  }
  return nlohmann::ordered_json{{"traceEvents", std::move(events)}}.dump();
}

}  // namespace rubato
