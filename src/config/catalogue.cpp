#include "rubato/config/catalogue.h"

#include <algorithm>

#include "rubato/config/entries.h"
#include "rubato/core/error.h"

namespace rubato {

const std::vector<std::string>& listable() {
  static const std::vector<std::string> kinds = {"schedules", "couplings", "models", "datasets", "optimizers"};
  return kinds;
}

std::vector<Listed> catalogue(const std::string& kind) {
  const auto found = std::ranges::find(entry_kinds(), kind, &EntryKind::plural);
  if (found == entry_kinds().end()) throw unknown_name("catalogue", kind, listable());
  std::vector<Listed> lines;
  for (const EntryView& entry : found->entries()) {
    lines.push_back({entry.name, entry.summary + (entry.paper.empty() ? "" : "; " + entry.paper)});
  }
  return lines;
}

}  // namespace rubato
