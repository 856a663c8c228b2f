#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace rubato {

/// "r0/ddg-1 waits for a message in 'gradients'; ..."
std::string deadlock_sentence(const std::map<std::string, std::string>& waits);

/// Who waits for what, and a look from time to time whether all do: then nobody will ever go on.
///
/// Exact, whatever the timing: a look finds a deadlock only if every role waits, nobody came or went meanwhile, and what each
/// waits for has not happened. Sleeping and computing roles do not wait. Thread-safe.
class Waiting {
 public:
  /// `found` is called with the sentence, at most once, on a thread of this object's own.
  Waiting(int roles, std::function<void(const std::string&)> found);

  /// A role waits as long as this lives. May be made while holding the lock that `may_go_on` takes.
  class Scope {
   public:
    /// `may_go_on` is called from another thread, at any time before the destructor of `waiting`.
    Scope(Waiting& waiting, const std::string& role, std::string what, std::function<bool()> may_go_on);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Waiting& waiting_;
    const std::string& role_;
  };
  /// One role less.
  void role_left();

 private:
  struct Wait {
    std::string what;
    std::function<bool()> may_go_on;
  };
  void watch(const std::stop_token& stop);
  bool all_wait_in_vain();

  std::function<void(const std::string&)> found_;
  std::mutex mutex_;  ///< guards the three below; innermost: never held while `may_go_on` runs
  std::map<std::string, Wait> waits_;
  int roles_;
  std::int64_t changes_ = 0;
  std::condition_variable_any wake_;
  std::jthread watcher_;  ///< last: uses all of the above
};

}  // namespace rubato
