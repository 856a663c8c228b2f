#include "launch/process_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "launch/hosts.h"
#include "rubato/transport/credentials.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

/// How OpenMP's threads wait. Several processes share a machine, and some of libtorch's builds let threads wait in loops: the
/// coordinator, which evaluates on all processors, would then slow its own workers down. It is read when the library is loaded,
/// so it cannot be set later.
constexpr const char* waiting = "OMP_WAIT_POLICY";

using Variables = std::vector<std::pair<std::string, std::string>>;

LocalPlace local_place_of(const JobRecord& job, const ProcessRecord& process) {
  if (process.coordinator()) return {};
  std::vector<std::string> hosts;
  for (const ProcessRecord& other : job.processes) {
    if (!other.coordinator()) hosts.push_back(other.host);
  }
  return local_place(hosts, process.rank);
}

Variables variables_of(const JobRecord& job, const ProcessRecord& process, const std::string& keys) {
  const LocalPlace local = local_place_of(job, process);
  return {{"RANK", std::to_string(process.rank)},
          {"WORLD_SIZE", std::to_string(job.workers())},
          {"LOCAL_RANK", std::to_string(local.rank)},
          {"LOCAL_WORLD_SIZE", std::to_string(local.world)},
          {"MASTER_ADDR", job.listen},
          {"MASTER_PORT", std::to_string(job.port)},
          {"RUBATO_ROLE", process.coordinator() ? "coordinator" : "worker"},
          {"RUBATO_STARTED_BY", "launch"},
          {"RUBATO_INCARNATION", std::to_string(process.incarnation)},
          {"RUBATO_KEYS", keys}};
}

/// `inherited` with `variables` in place of its own. What torchrun told the launcher is not for the processes of this job.
std::vector<std::string> merged(const std::vector<std::string>& inherited, const Variables& variables) {
  std::vector<std::string> environment;
  bool waiting_is_said = false;
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  for (const std::string& entry : inherited) {
    const std::string name = entry.substr(0, entry.find('='));
    const bool ours = std::any_of(variables.begin(), variables.end(), [&](const auto& own) { return own.first == name; });
    if (!ours && !name.starts_with("TORCHELASTIC_")) environment.push_back(entry);
    if (name == waiting) waiting_is_said = true;
  }
  if (!waiting_is_said) environment.push_back(std::string(waiting) + "=passive");
  return environment;
}

std::vector<std::string> program_of(const JobRecord& job) {
  std::vector<std::string> program = {job.command.string()};
  program.insert(program.end(), job.arguments.begin(), job.arguments.end());
  return program;
}

/// For the login shell of the other host, whichever that is.
std::string remote_line(const JobRecord& job, const Variables& variables) {
  std::string script = "cd " + shell_quoted(job.folder) + " && export";
  for (const auto& [name, value] : variables) script += " " + name + "=" + shell_quoted(value);
  script += fmt::format(" {0}=\"${{{0}:-passive}}\" && exec", waiting);
  for (const std::string& word : program_of(job)) script += " " + shell_quoted(word);
  return "exec sh -c " + shell_quoted(script);
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

}  // namespace

std::string shell_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char letter : text) quoted += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
  return quoted + "'";
}

Command command_of(const JobRecord& job, std::size_t index, const fs::path& run, const std::vector<std::string>& inherited) {
  const ProcessRecord& process = job.processes.at(index);
  if (process.host == this_machine) {
    const std::string keys = (fs::path(job.folder) / run / key_file).string();
    return {
        .arguments = program_of(job), .environment = merged(inherited, variables_of(job, process, keys)), .folder = job.folder};
  }
  Command command{
      .environment = inherited, .folder = job.folder, .input = to_text(read_credentials(fs::path(job.folder) / run / key_file))};
  command.arguments = words_of(job.ssh);
  command.arguments.push_back(process.host);
  command.arguments.push_back(remote_line(job, variables_of(job, process, "-")));
  return command;
}

std::vector<std::string> inherited_environment() {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  return environment;
}

}  // namespace rubato
