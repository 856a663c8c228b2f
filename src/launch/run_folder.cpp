#include "launch/run_folder.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

#include "rubato/core/error.h"
#include "rubato/core/read_file.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

/// The last value of `flag`, given as "--flag VALUE" or "--flag=VALUE"; empty when it is not there.
std::string value_of(const std::vector<std::string>& arguments, const std::string& flag) {
  std::string value;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == flag && i + 1 < arguments.size()) value = arguments[i + 1];
    if (arguments[i].starts_with(flag + "=")) value = arguments[i].substr(flag.size() + 1);
  }
  return value;
}

fs::path new_folder(const fs::path& runs) {
  const std::string name = fmt::format("{:%Y%m%d-%H%M%S}-launch", fmt::localtime(std::time(nullptr)));
  fs::create_directories(runs);
  for (int i = 1;; ++i) {
    const fs::path folder = runs / (i == 1 ? name : fmt::format("{}-{}", name, i));
    if (fs::create_directory(folder)) return folder;
  }
}

}  // namespace

fs::path agree_on_run_folder(std::vector<std::string>& arguments, const fs::path& runs) {
  const std::string resumed = value_of(arguments, "--resume");
  if (!resumed.empty()) {
    if (!fs::is_directory(resumed)) throw DataError("--resume " + resumed + ": there is no such run folder");
    return resumed;
  }
  try {
    fs::path folder = value_of(arguments, "--run-dir");
    if (folder.empty()) {
      folder = new_folder(runs);
      arguments.insert(arguments.end(), {"--run-dir", folder.string()});
    }
    fs::create_directories(folder);
    return folder;
  } catch (const fs::filesystem_error& error) {
    throw DataError("cannot make the run folder " + sentence_of(error));
  }
}

}  // namespace rubato
