#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "commands.h"
#include "rubato/app/command_line.h"
#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/model/process.h"

namespace rubato::app {
namespace {

constexpr const char* footer = R"(
Examples:
  rubato train --model resnet8 --schedule ddg --stages 2 --epochs 8
  rubato train --schedule pd-asgd --forward-threads 1 --backward-threads 2
  rubato train --resume runs/20260101-120000-ddg-resnet8
  rubato launch -n 2 -- train --model resnet8 --coupling eamsgd
  rubato simulate --platform uniform:4 --schedule ddg --stages 4 --steps 100
  rubato train --schedule hogwild --record --run-dir runs/a && rubato replay runs/a
  rubato simulate --from runs/a --workers 8
  rubato compare experiments/ddg.toml --jobs 2
  rubato eval --checkpoint runs/20260101-120000-ddg-resnet8

Exit codes: 0 done; 1 out of memory or an internal error; 2 wrong usage or configuration; 3 data, checkpoint or run folder that cannot be read or written;
4 training diverged (last good checkpoint kept); 130 interrupted (checkpoint written).)";

/// Names of all options of the subcommand that was being parsed, for "did you mean".
std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands()) {
    for (const CLI::Option* option : sub->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

/// Output that was lost, on a full disk for example, is a failure.
int said(int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  pollfd reader{STDOUT_FILENO, POLLOUT, 0};
  if (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0) return code;  // whoever read has seen enough
  std::fprintf(stderr, "rubato: cannot write to standard output: %s\n", errno != 0 ? std::strerror(errno) : "output was lost");
  return code == 0 ? static_cast<int>(rubato::ExitCode::data) : code;
}

int fail(const char* what, rubato::ExitCode code) {
  std::fprintf(stderr, "rubato: %s\n", what);
  return static_cast<int>(code);
}

/// A descriptor that was closed would be given to the next file that is opened, and what is printed would land in it.
void open_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) == -1 && open("/dev/null", O_RDWR) != descriptor)
      _exit(static_cast<int>(rubato::ExitCode::internal));
  }
}

void (*memory_hook)() = nullptr;

/// Everything that can be said on the command line.
void add_commands(CLI::App& app, Chosen& chosen) {
  app.footer(footer);
  app.require_subcommand(1);
  app.set_version_flag("--version", [] { return version_text(); });
  for (const auto add :
       {add_train, add_launch, add_simulate, add_replay, add_compare, add_eval, add_profile, add_status, add_keys, add_list}) {
    add(app, chosen);
  }
}

}  // namespace

std::string sentence_of(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> extras = app.remaining(true);
  if (!extras.empty() && dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    const std::string nearest = rubato::nearest_name(extras.front(), option_names(app));
    return "unknown argument '" + extras.front() + "'" + (nearest.empty() ? "" : ": did you mean '" + nearest + "'?") +
           " `rubato " + (app.get_subcommands().empty() ? "" : app.get_subcommands().front()->get_name() + " ") +
           "--help` lists all.";
  }
  std::string text = error.what();
  const std::string failed = "Could not convert: ", between = " = ";
  const std::size_t value = text.find(between);
  if (!text.starts_with(failed) || value == std::string::npos) return text;
  return text.substr(failed.size(), value - failed.size()) + ": '" + text.substr(value + between.size()) + "' is not a number";
}

std::filesystem::path this_program() {
  return std::filesystem::read_symlink("/proc/self/exe");
}

void expect_large_changes_of_memory() {
  if (memory_hook != nullptr) memory_hook();
}

}  // namespace rubato::app

int rubato::run_command_line(int argc, char** argv, void (*give_memory_back)()) {
  using namespace app;
  open_standard_streams();
  std::signal(SIGCHLD, SIG_DFL);  // who has started us may ignore it, and then nobody would learn how children end
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit then fails the write, which is reported
  prepare_process();
  memory_hook = give_memory_back;

  CLI::App app{"rubato trains PyTorch models without lockstep: layers need not wait for the whole backward pass."};
  Chosen chosen;
  try {
    add_commands(app, chosen);
    app.parse(argc, argv);
    return said(chosen());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      app.exit(error);
      std::cout.flush();
      return std::cout ? said(0) : fail("cannot write to standard output", rubato::ExitCode::data);
    }
    return fail(sentence_of(app, error).c_str(), rubato::ExitCode::usage);
  } catch (const std::exception& error) {
    const auto [code, sentence] = failure_of(error);
    return fail(sentence.c_str(), code);
  }
}
