#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "commands.h"
#include "option_flags.h"
#include "rubato/core/error.h"
#include "rubato/core/read_file.h"
#include "rubato/io/files.h"
#include "rubato/monitor/status.h"

namespace fs = std::filesystem;

namespace rubato::app {
namespace {

struct StatusArguments {
  std::string run;
  bool json = false;
  double watch = 0;
};

JobStatus read_status(const std::string& run) {
  const fs::path file = fs::path(run) / "status.json";
  if (const auto why = hidden_by(file)) throw DataError("cannot read " + file.string() + ": " + *why);
  if (!fs::exists(file)) {
    throw DataError(file.string() + " is not there: `rubato status` knows runs of `rubato launch`; for others see summary.json");
  }
  JobStatus status = status_from_json(read_file(file), file.string());
  status.run = run;  // as the user names it: the coordinator may have another working folder
  return status;
}

void print(const JobStatus& status, bool json) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  const std::string text = json ? to_json(status) : status_table(status, now.count());
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

/// Until the job has ended, or nobody reads any more.
void watch(const StatusArguments& arguments) {
  const bool screen = isatty(STDOUT_FILENO) != 0 && !arguments.json;
  while (true) {
    const JobStatus status = read_status(arguments.run);
    if (screen) std::fputs("\033[H\033[2J", stdout);
    print(status, arguments.json);
    if ((status.state != "waiting" && status.state != "running") || std::ferror(stdout) != 0) return;
    if (!screen && !arguments.json) std::fputs("\n", stdout);
    std::this_thread::sleep_for(std::chrono::duration<double>(arguments.watch));
  }
}

}  // namespace

void add_status(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<StatusArguments>();
  CLI::App* command = app.add_subcommand("status", "how a run of `rubato launch` is getting on: one row for each worker");
  command->add_option("run", arguments->run, "its run folder")->required();
  command->add_flag("--json", arguments->json, "everything as JSON");
  command->add_option("--watch", arguments->watch, "again every SECONDS until the job has ended")->check(between(0.1, 86400.0));
  command->callback([=, &chosen] {
    chosen = [=] {
      if (arguments->watch > 0) {
        watch(*arguments);
      } else {
        print(read_status(arguments->run), arguments->json);
      }
      return 0;
    };
  });
}

}  // namespace rubato::app
