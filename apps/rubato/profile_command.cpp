#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "commands.h"
#include "option_flags.h"
#include "rubato/core/error.h"
#include "rubato/cost/cuts.h"
#include "rubato/cost/profile.h"
#include "rubato/io/files.h"
#include "rubato/job/plan.h"
#include "rubato/schedules/pipeline.h"

namespace rubato::app {
namespace {

void print_table(const Profile& profile) {
  fmt::print("{:>5}  {:<14} {:>12} {:>14} {:>10} {:>11} {:>12} {:>10}\n", "block", "name", "parameters", "activation KiB",
             "MFLOP", "forward ms", "backward ms", "update ms");
  for (std::size_t i = 0; i < profile.blocks.size(); ++i) {
    const BlockProfile& block = profile.blocks[i];
    fmt::print("{:>5}  {:<14} {:>12} {:>14} {:>10.1f} {:>11.3f} {:>12.3f} {:>10.3f}\n", i, block.name, block.parameters,
               block.activation_bytes / 1024, block.flops / 1e6, block.seconds.forward * 1e3, block.seconds.backward * 1e3,
               block.seconds.update * 1e3);
  }
  fmt::print("{:>5}  {:<14} {:>12} {:>14} {:>10.1f} {:>11.3f}\n", "", "loss", "", "", profile.loss_flops / 1e6,
             profile.loss_seconds * 1e3);
}

std::string slowdown_text(const std::vector<double>& slowdown) {
  std::vector<std::string> parts;
  for (std::size_t n = 1; n <= slowdown.size(); ++n) parts.push_back(fmt::format("n = {}: {:.2f}x", n, slowdown[n - 1]));
  return join(parts);
}

/// Speed-up of K stages that never wait: all time over the slowest stage's.
double ideal_speedup(const std::vector<BlockCost>& costs, const std::vector<int>& cuts) {
  double all = 0, slowest = 0;
  std::size_t block = 0;
  for (std::size_t k = 0; k <= cuts.size(); ++k) {
    const std::size_t end = k < cuts.size() ? static_cast<std::size_t>(cuts[k]) : costs.size();
    double stage = 0;
    for (; block < end; ++block) stage += costs[block].forward + costs[block].backward + costs[block].update;
    all += stage;
    slowest = std::max(slowest, stage);
  }
  return slowest > 0 ? all / slowest : 1;
}

/// What a synchronous pipeline would do with one batch; needs neither model nor data.
int print_pipeline(const std::string& name, const TrainOptions& given) {
  TrainOptions options = given;
  options.schedule = pipeline_names().front();  // so that --stages counts
  options = resolve(options);
  const int micro_batches = options.values.get<int>("micro-batches");
  const PipelinePlan plan = make_pipeline_plan(name, options.stages, micro_batches);
  fmt::print("{} with {} stages and {} micro-batches; a forward takes 1, a backward 2\n\n{}\n", name, options.stages,
             micro_batches, drawing(plan));
  for (std::size_t k = 0; k < plan.stages.size(); ++k) {
    fmt::print("stage {}: {}  (peak activations {})\n", k, to_text(plan.stages[k]), peak_live_activations(plan.stages[k]));
  }
  fmt::print("bubble: {:.1f}% of the stages' time\n", 100 * bubble_ratio(plan));
  return 0;
}

int profile_model(const TrainOptions& given, const std::string& output, int repeats) {
  TrainOptions options = given;
  options = with_coupling(with_schedule(std::move(options), "serial"), "none");
  const Plan plan = make_plan(options);
  const Batch batch = plan.batches->make(0);
  Profile profile = measure_profile(plan.model, plan.stage, plan.store, batch, repeats);
  const int processors = std::max(1, plan.roles.processors);
  profile.slowdown = measure_slowdown(plan.model, plan.stage, plan.store, batch, processors, std::max(1, repeats / 2));
  if (!output.empty()) write_atomically(output, to_json(profile));
  if (options.json) {
    fmt::print("{}", to_json(profile));
  } else if (!options.quiet) {
    print_table(profile);
    fmt::print("steps side by side, one on each of n cores, take as long as: {}\n", slowdown_text(profile.slowdown));
    const int most = std::min<int>(4, static_cast<int>(profile.blocks.size()));
    for (int stages = 2; stages <= most; ++stages) {
      const std::vector<int> cuts = balanced_cuts(profile.costs_of_stages(), stages);
      fmt::print("{} stages: --cuts {}  (at most {:.2f}x serial)\n", stages, fmt::join(cuts, ","),
                 ideal_speedup(profile.costs_of_stages(), cuts));
    }
  }
  return 0;
}

}  // namespace

void add_profile(CLI::App& app, Chosen& chosen) {
  struct Arguments {
    TrainOptions flags;
    std::string config_file, output, pipeline;
    int repeats = 10;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("profile", "cost and bytes per block on this machine; balanced cuts");
  command->add_option("-o,--output", arguments->output, "write the profile as JSON, for `rubato simulate --profile`");
  command->add_option("--repeats", arguments->repeats, "measured steps; the median counts")
      ->capture_default_str()
      ->check(between(1, 10000));
  command->add_option("--pipeline", arguments->pipeline,
                      "print instead what a pipeline of --stages and --micro-batches does, and when: " + join(pipeline_names()));
  add_option_flags(*command, arguments->flags, arguments->config_file);
  command->callback([=, &chosen] {
    chosen = [=] {
      const TrainOptions options = given_options(*command, arguments->flags, arguments->config_file);
      if (!arguments->pipeline.empty()) return print_pipeline(arguments->pipeline, options);
      return profile_model(options, arguments->output, arguments->repeats);
    };
  });
}

}  // namespace rubato::app
