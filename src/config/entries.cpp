#include "rubato/config/entries.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "rubato/config/options_table.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/data/dataset.h"
#include "rubato/model/optimizer.h"
#include "rubato/schedules/schedule.h"
#include "rubato/zoo/zoo.h"

namespace rubato {
namespace {

template <class Entry>
EntryView view_of(const Entry& entry) {
  EntryView view{
      .name = entry.name, .summary = entry.summary, .options = entry.options, .complete = entry.complete, .check = entry.check};
  if constexpr (requires { entry.paper; }) view.paper = entry.paper;
  if constexpr (requires { entry.reads; }) view.reads = entry.reads;
  if constexpr (requires { entry.uses_cuts; }) {
    if (entry.uses_cuts) view.reads = {"stages", "cuts"};
    if (entry.publishes) view.reads.emplace_back("publish");
  }
  if constexpr (requires { entry.topology; }) {
    if (entry.topology != Topology::alone) view.reads.emplace_back("sampling");
  }
  return view;
}

template <auto all>
std::vector<EntryView> views() {
  std::vector<EntryView> views;
  for (const auto& entry : all()) views.push_back(view_of(entry));
  return views;
}

void check_reads(const EntryKind& kind, const EntryView& entry) {
  for (const std::string& option : entry.reads) {
    if (std::ranges::find(kind.shared, option) != kind.shared.end()) continue;
    throw std::logic_error(fmt::format("{} '{}' says that it reads '{}', which is none of those that some of its kind read: {}",
                                       kind.noun, entry.name, option, join(kind.shared)));
  }
}

const std::set<std::string>& options_of_all_runs() {
  static const std::set<std::string> names = [] {
    std::set<std::string> all;
    visit_options(TrainOptions{}, [&](const OptionInfo& info, const auto&) { all.insert(info.name); });
    return all;
  }();
  return names;
}

void add(std::vector<EntryOption>& all, const EntryKind& kind, const EntryView& entry, const OptionSpec& spec) {
  const auto known = std::ranges::find(all, spec.name, [](const EntryOption& option) { return option.spec.name; });
  const bool is_new = known == all.end();
  if (options_of_all_runs().contains(spec.name) || (!is_new && known->kind != &kind)) {
    throw std::logic_error(fmt::format("{} '{}' has an option '{}', which there is already for {}; give it another name",
                                       kind.noun, entry.name, spec.name, is_new ? "all runs" : known->kind->plural));
  }
  if (is_new) {
    all.push_back({spec, &kind, {entry.name}});
  } else {
    known->entries.push_back(entry.name);
  }
}

}  // namespace

const std::vector<EntryKind>& entry_kinds() {
  static const std::vector<EntryKind> kinds = {
      {"data",
       "data set",
       "datasets",
       "Data",
       {"sequence-length", "augment", "memory-format"},
       &TrainOptions::data,
       views<datasets>},
      {"model", "model", "models", "Model", {"width", "dropout"}, &TrainOptions::model, views<models>},
      {"schedule", "schedule", "schedules", "Schedule", {"stages", "cuts", "publish"}, &TrainOptions::schedule, views<schedules>},
      {"coupling", "coupling", "couplings", "Replicas", {"sampling"}, &TrainOptions::coupling, views<couplings>},
      {"optimizer", "optimizer", "optimizers", "Optimizer", {}, &TrainOptions::optimizer, views<optimizers>}};
  return kinds;
}

EntryView find_entry(const EntryKind& kind, const std::string& name) {
  std::vector<std::string> known;
  for (EntryView& entry : kind.entries()) {
    if (entry.name == name) return std::move(entry);
    known.push_back(entry.name);
  }
  throw unknown_name(kind.noun, name, known);
}

std::vector<EntryOption> entry_options() {
  std::vector<EntryOption> all;
  for (const EntryKind& kind : entry_kinds()) {
    for (const EntryView& entry : kind.entries()) {
      check_reads(kind, entry);
      for (const OptionSpec& spec : entry.options) add(all, kind, entry, spec);
    }
  }
  return all;
}

std::string table_of(const std::string& group) {
  const auto found = std::ranges::find(entry_kinds(), group, &EntryKind::group);
  return found == entry_kinds().end() ? "" : found->name;
}

}  // namespace rubato
