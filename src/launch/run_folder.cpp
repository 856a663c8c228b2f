#include "launch/run_folder.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <fstream>
#include <iterator>

#include "launch/job_file.h"
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

/// Empty where none is named.
fs::path named_run_folder(const std::vector<std::string>& arguments) {
  const std::string resumed = value_of(arguments, "--resume");
  return resumed.empty() ? value_of(arguments, "--run-dir") : resumed;
}

std::optional<std::string> if_it_is_there(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  return std::string{std::istreambuf_iterator<char>(stream), {}};
}

/// Readable by the owner alone, whole or not at all.
void put_back(const fs::path& file, const std::string& content) {
  const fs::path draft = file.string() + ".tmp";
  std::error_code ignored;
  fs::remove(draft, ignored);
  std::ofstream(draft).close();
  fs::permissions(draft, fs::perms::owner_read | fs::perms::owner_write, ignored);
  if (std::ofstream(draft, std::ios::binary) << content << std::flush) fs::rename(draft, file, ignored);
}

}  // namespace

bool was_written_by(const fs::path& run, pid_t pid) {
  std::string writer;
  std::getline(std::ifstream(run / ".lock"), writer);
  return writer == std::to_string(pid);
}

FolderBefore::FolderBefore(const std::vector<std::string>& arguments, const fs::path& runs) {
  const fs::path named = named_run_folder(arguments);
  std::error_code ignored;
  for (fs::path folder = named.empty() ? runs : named; !folder.empty() && !fs::exists(folder, ignored);
       folder = folder.parent_path()) {
    missing_.push_back(folder);
  }
  for (const char* name : {job_file, key_file}) {
    if (!named.empty()) content_[name] = if_it_is_there(named / name);
  }
}

void FolderBefore::restore(const fs::path& run) const {
  std::error_code ignored;
  for (const char* name : {job_file, key_file}) {
    const auto before = content_.find(name);
    if (before != content_.end() && before->second) {
      put_back(run / name, *before->second);
    } else {
      fs::remove(run / name, ignored);
    }
  }
  if (content_.empty()) fs::remove(run, ignored);  // it was made for this job
  for (const fs::path& folder : missing_) fs::remove(folder, ignored);
}

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
