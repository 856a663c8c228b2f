#pragma once

#include <string>
#include <vector>

#include "rubato/config/options.h"
#include "rubato/core/option_values.h"

namespace rubato {

/// An entry of any registry as the configuration sees it.
struct EntryView {
  std::string name, summary, paper;
  std::vector<std::string> reads;   ///< of `EntryKind::shared`
  std::vector<OptionSpec> options;  ///< of its own
  CompleteOptions complete;
  CheckOptions check;
};

/// A registry as the configuration sees it.
struct EntryKind {
  std::string name;                   ///< of the flag that chooses an entry and of the table in TOML: "schedule"
  std::string noun;                   ///< in sentences
  std::string plural;                 ///< in `rubato list`
  std::string group;                  ///< its options' heading in --help
  std::vector<std::string> shared;    ///< options of all runs that only some of its entries read
  std::string TrainOptions::*chosen;  ///< the entry's name
  std::vector<EntryView> (*entries)();
};
/// data, model, schedule, coupling, optimizer
const std::vector<EntryKind>& entry_kinds();

/// The entry of `kind` that is called `name`. UsageError with the nearest known name.
EntryView find_entry(const EntryKind& kind, const std::string& name);

/// An option that one entry or several of a kind bring.
struct EntryOption {
  OptionSpec spec;
  const EntryKind* kind;
  std::vector<std::string> entries;  ///< that read it
};
/// All that there are. std::logic_error where one has the name of an option of all runs, or of an option of another kind, or
/// where an entry says that it reads what is not shared.
std::vector<EntryOption> entry_options();

/// The table in TOML of options with this heading; empty: the top level.
std::string table_of(const std::string& group);

}  // namespace rubato
