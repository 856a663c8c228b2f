#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "rubato/core/error.h"
#include "rubato/core/option_values.h"

namespace rubato {

/// Names and options of the entries of a registry. Its members expect the lock to be held.
class RegistryNames {
 protected:
  explicit RegistryNames(std::string kind) : kind_(std::move(kind)) {}
  /// std::logic_error: the name is taken or malformed, or one of the options is, or another entry has declared an option of the
  /// same name with another type, default, help or range.
  void admit(const std::string& name, const std::vector<OptionSpec>& options);
  UsageError unknown(const std::string& name) const { return unknown_name(kind_, name, names_); }

 private:
  std::string kind_;
  std::vector<std::string> names_;
  std::vector<OptionSpec> options_;
};

/// Entries of one kind (schedules, couplings, ...) by name: those that come along and those that users add. An entry has `name`,
/// `options`, `complete` and `check`; see `OptionSpec`.
///
/// Every member may be called from any thread. An entry is never changed or taken away. What is added after a run has begun is
/// not seen by that run.
template <class Entry>
class Registry : RegistryNames {
 public:
  /// `kind`: as it is called in sentences.
  Registry(std::string kind, std::vector<Entry> first) : RegistryNames(std::move(kind)) {
    for (Entry& entry : first) add(std::move(entry));
  }

  /// std::logic_error where the name is taken, or an option is declared otherwise elsewhere. Returns true, so that an object of
  /// static lifetime can be made of the call.
  bool add(Entry entry) {
    const std::lock_guard lock(mutex_);
    admit(entry.name, entry.options);
    entries_.push_back(std::move(entry));
    return true;
  }
  /// UsageError with the nearest known name.
  const Entry& find(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      if (entry.name == name) return entry;
    }
    throw unknown(name);
  }
  /// In the order in which they were added.
  std::vector<Entry> all() const {
    const std::lock_guard lock(mutex_);
    return {entries_.begin(), entries_.end()};
  }

 private:
  mutable std::mutex mutex_;
  std::deque<Entry> entries_;  // which never moves what is in it
};

/// The values of the entry's own options: as given, else the default, else what `complete` works out. UsageError for a wrong type
/// or a number out of range.
template <class Entry>
OptionValues completed_values(const Entry& entry, const OptionValues& given, const RunFacts& facts) {
  OptionValues own = own_values(entry.options, given);
  if (entry.complete) entry.complete(own, facts);
  return own;
}

/// The same, and UsageError where they cannot work together.
template <class Entry>
OptionValues checked_values(const Entry& entry, const OptionValues& given, const RunFacts& facts) {
  OptionValues own = completed_values(entry, given, facts);
  if (entry.check) entry.check(own, facts);
  return own;
}

}  // namespace rubato
