#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <memory>

#include "commands.h"
#include "option_flags.h"
#include "rubato/compare/picture.h"
#include "rubato/compare/runner.h"
#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"

namespace fs = std::filesystem;

namespace rubato::app {
namespace {

struct CompareArguments {
  std::string file, output, publish;
  int jobs = 1;
  bool full = false, quiet = false;
};

/// A page for the documentation: what was asked, what came out, how it was made.
std::string page_of(const Experiment& experiment, const CompareArguments& arguments, const std::string& table, std::size_t runs,
                    double seconds) {
  std::string text = fmt::format("# {}\n\n", experiment.title);
  if (!experiment.text.empty()) text += experiment.text + "\n\n";
  text += table + "\n";
  for (const Picture& picture : experiment.pictures) text += fmt::format("![{}]({})\n\n", picture.title, picture.file);
  text += fmt::format("{} runs by `rubato compare {}{} --jobs {}`, {:%Y-%m-%d}, {}", runs, arguments.file,
                      arguments.full ? " --full" : "", arguments.jobs, fmt::gmtime(std::time(nullptr)), machine_info());
  if (seconds > 0) text += fmt::format("; {:.0f} s of processor time in all", seconds);
  return text + ".\n";
}

void print_progress(std::size_t done, std::size_t all, const Trial& trial, double seconds, const std::string& note) {
  fmt::print(stderr, "[{}/{}] {}  {}{}\n", done, all, trial.name(), note.empty() ? "" : note + "  ",
             seconds > 0 ? fmt::format("{:.1f} s", seconds) : "");
}

/// What a run would be refused for is said before the first one.
void check_flags(const Experiment& experiment, const std::vector<Trial>& trials) {
  CLI::App app;
  Chosen never;
  add_train(app, never);
  add_simulate(app, never);
  const CLI::App* command = app.get_subcommand(experiment.command);
  for (const auto& [name, values] : experiment.vary) {
    if (command->get_option_no_throw("--" + name) == nullptr) continue;
    throw UsageError(fmt::format("'{}' in [vary] is a flag of rubato {}: put it into [grid], or call it something else", name,
                                 experiment.command));
  }
  for (const Trial& trial : trials) {
    std::vector<std::string> words = arguments_of(experiment.command, trial, "RUN");
    std::ranges::reverse(words);
    try {
      app.parse(std::move(words));
    } catch (const CLI::ParseError& error) {
      throw UsageError(fmt::format("the run {}: {}", trial.name(), sentence_of(app, error)));
    }
  }
}

int compare(const CompareArguments& arguments) {
  const Experiment experiment = load_experiment(arguments.file, arguments.full);
  const std::vector<Trial> trials = trials_of(experiment);
  check_flags(experiment, trials);
  const fs::path folder = arguments.output.empty() ? fs::path("runs") / ("compare-" + fs::path(arguments.file).stem().string())
                                                   : fs::path(arguments.output);
  if (!arguments.publish.empty()) fs::create_directories(arguments.publish);  // or hours of runs would end in a refusal
  try {
    run_trials(experiment.command, trials,
               {.program = this_program().string(),
                .folder = folder,
                .jobs = arguments.jobs,
                .ended = arguments.quiet ? decltype(RunnerOptions::ended){} : print_progress});
  } catch (const Interrupted&) {
    fmt::print(stderr, "rubato: interrupted; the same command goes on with the runs that are missing\n");
    return static_cast<int>(ExitCode::interrupted);
  }
  const std::vector<Result> results = read_results(experiment, trials, folder);
  const std::string table = table_of(experiment, rows_of(experiment, results));
  double seconds = 0;
  for (const Result& result : results) seconds += result.figures.contains("seconds") ? result.figures.at("seconds") : 0;
  write_atomically(folder / "table.md", page_of(experiment, arguments, table, trials.size(), seconds));
  write_atomically(folder / "runs.csv", csv_of(results));
  fmt::print("{}\n\n{}\n", experiment.title, table);
  for (const Picture& picture : experiment.pictures) draw(picture, experiment, results, folder, folder / picture.file);
  if (!arguments.publish.empty()) {
    const auto over = fs::copy_options::overwrite_existing;
    fs::copy_file(folder / "table.md", fs::path(arguments.publish) / (fs::path(arguments.file).stem().string() + ".md"), over);
    for (const Picture& picture : experiment.pictures) {
      fs::copy_file(folder / picture.file, fs::path(arguments.publish) / picture.file, over);
    }
  }
  fmt::print("table.md, runs.csv{} in {}\n", experiment.pictures.empty() ? "" : " and pictures", folder.string());
  return 0;
}

}  // namespace

void add_compare(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* command = app.add_subcommand(
      "compare", "the runs that a TOML file describes, several at a time: one table, pictures; goes on where it was interrupted");
  command->add_option("file", arguments->file, "experiments/*.toml are examples; docs/experiments.md describes the keys")
      ->required();
  command->add_option("-j,--jobs", arguments->jobs, "runs at the same time")->capture_default_str()->check(between(1, 1024));
  command->add_option("-o,--output", arguments->output, "folder of runs, table and pictures; default: runs/compare-NAME");
  command->add_option("--publish", arguments->publish, "copy table and pictures into this folder too");
  command->add_flag("--full", arguments->full, "the size that the file's [full] section says");
  command->add_flag("--quiet", arguments->quiet, "no progress");
  command->callback([=, &chosen] { chosen = [=] { return compare(*arguments); }; });
}

}  // namespace rubato::app
