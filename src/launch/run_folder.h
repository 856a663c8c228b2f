#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace rubato {

/// The run folder that `arguments` of a job name: --resume RUN or --run-dir RUN. When they name none, a new one is made under
/// `runs` and --run-dir is added, so that all processes agree. The folder exists afterwards. UsageError, DataError.
std::filesystem::path agree_on_run_folder(std::vector<std::string>& arguments, const std::filesystem::path& runs = "runs");

/// Whether process `pid` is the last that wrote the run in this folder; the lock names it.
bool was_written_by(const std::filesystem::path& run, pid_t pid);

/// The run folder that `arguments` name, as it is before the launcher writes into it.
class FolderBefore {
 public:
  explicit FolderBefore(const std::vector<std::string>& arguments, const std::filesystem::path& runs = "runs");
  /// Takes the launcher's files in `run` back: the job was refused. What others have written stays.
  void restore(const std::filesystem::path& run) const;

 private:
  std::vector<std::filesystem::path> missing_;                 ///< folders that were not there, the innermost first
  std::map<std::string, std::optional<std::string>> content_;  ///< of the launcher's files
};

}  // namespace rubato
