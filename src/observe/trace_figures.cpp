#include "rubato/observe/trace_figures.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

namespace rubato {
namespace {

/// Replica of a role: "r1/worker-0" is of "r1", "worker-0" of "r0", the only one.
std::string replica_of(const std::string& role) {
  const std::size_t slash = role.find('/');
  return slash == std::string::npos ? "r0" : role.substr(0, slash);
}

struct Span {
  double begin = 0, end = 0, waited = 0;
  bool computes = false;
};

bool waits(EventKind kind) {
  return kind == EventKind::send || kind == EventKind::receive || kind == EventKind::all_reduce;
}

double waiting_share(const std::vector<Trace::Entry>& entries) {
  std::map<std::string, Span> roles;
  for (const Trace::Entry& entry : entries) {
    const auto [found, is_new] = roles.try_emplace(entry.role, Span{.begin = entry.begin});
    Span& span = found->second;
    span.end = std::max(span.end, entry.end);
    if (waits(entry.event.kind)) span.waited += entry.end - entry.begin;
    if (entry.event.kind == EventKind::compute) span.computes = true;
  }
  double waited = 0, total = 0;
  for (const auto& [name, span] : roles) {
    if (!span.computes) continue;
    waited += span.waited;
    total += span.end - span.begin;
  }
  return total > 0 ? waited / total : 0;
}

}  // namespace

TraceFigures figures_of(const Trace& trace) {
  const std::vector<Trace::Entry> entries = trace.entries();
  TraceFigures figures{.waiting_share = waiting_share(entries)};
  std::map<std::pair<std::string, std::int64_t>, double> begun;  // forward passes by (role or replica, batch)
  std::map<int, std::int64_t> publications;
  for (const Trace::Entry& entry : entries) {
    const Event& event = entry.event;
    if (event.kind == EventKind::compute && event.computation.kind == ComputeKind::forward) {
      begun.try_emplace({entry.role, event.batch}, entry.begin);  // of micro-batches the first
      begun.try_emplace({replica_of(entry.role), event.batch}, entry.begin);
    }
    if (event.kind != EventKind::publish || event.batch < 0 || event.staleness < 0) continue;
    auto found = begun.find({entry.role, event.batch});  // a stage has a forward pass of its own
    if (found == begun.end()) found = begun.find({replica_of(entry.role), event.batch});
    if (found == begun.end()) continue;
    figures.age_seconds[event.block] += entry.end - found->second;
    ++publications[event.block];
  }
  double sum = 0;
  std::int64_t count = 0;
  for (auto& [block, seconds] : figures.age_seconds) {
    sum += seconds;
    count += publications.at(block);
    seconds /= static_cast<double>(publications.at(block));
  }
  if (count > 0) figures.mean_age_seconds = sum / static_cast<double>(count);
  return figures;
}

}  // namespace rubato
