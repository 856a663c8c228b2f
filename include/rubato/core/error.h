#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace rubato {

/// How the command ends. Documented in README.md and in `rubato --help`; scripts rely on the numbers.
enum class ExitCode : int {
  ok = 0,
  internal = 1,       ///< out of memory, an error of libtorch, a fault of rubato
  usage = 2,          ///< wrong flags, configuration or combination
  data = 3,           ///< data, checkpoint or run folder that cannot be read or written
  diverged = 4,       ///< the loss is not finite; the last good checkpoint is kept
  interrupted = 130,  ///< SIGINT or SIGTERM; a checkpoint was written
};

/// Every failure a user can cause. `what()` is one sentence: the value given, what is allowed, the way out.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

struct UsageError : Error {
  explicit UsageError(const std::string& sentence) : Error(ExitCode::usage, sentence) {}
};
struct DataError : Error {
  explicit DataError(const std::string& sentence) : Error(ExitCode::data, sentence) {}
};
struct DivergedError : Error {
  explicit DivergedError(const std::string& sentence) : Error(ExitCode::diverged, sentence) {}
};

/// The member of `known` with the smallest edit distance to `given`; empty if nothing is near.
std::string nearest_name(std::string_view given, const std::vector<std::string>& known);

/// "unknown schedule 'dgd': did you mean 'ddg'? Known: serial, ..., ddg."
UsageError unknown_name(std::string_view kind, std::string_view given, const std::vector<std::string>& known);

/// "a, b, c"
std::string join(const std::vector<std::string>& parts, std::string_view separator = ", ");

}  // namespace rubato
