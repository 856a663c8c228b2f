#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <memory>

#include "commands.h"
#include "option_flags.h"
#include "process_mode.h"
#include "progress_line.h"
#include "rubato/cluster/worker.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"
#include "rubato/job/what_if.h"
#include "rubato/train/trainer.h"
#include "stop_signals.h"

namespace rubato::app {
namespace {

/// Whoever reads may be gone: a job goes on without its launcher.
void say(std::FILE* stream, const std::string& text) {
  std::fputs(text.c_str(), stream);
  std::fflush(stream);
}

using namespace std::chrono_literals;

// Longer in a job: each of its processes may be signalled, and the launcher passes on what comes to it.
constexpr std::chrono::milliseconds one_wish = 250ms, one_wish_for_a_job = 2s;

/// First SIGINT or SIGTERM: end soon, with a checkpoint. Second: at once.
class StopsTrainer final : public SignalFollower {
 public:
  explicit StopsTrainer(Trainer& trainer) : trainer_(trainer) {}
  void stop() override { trainer_.request_stop(); }
  void job_has_ended(int) override {}

 private:
  Trainer& trainer_;
};

/// First SIGINT or SIGTERM: the whole job ends, with a checkpoint. Second: this process, at once.
class StopsWorker final : public SignalFollower {
 public:
  explicit StopsWorker(Worker& worker) : worker_(worker) {}
  void stop() override { worker_.request_stop(); }
  void job_has_ended(int code) override { worker_.coordinator_has_ended(static_cast<ExitCode>(code)); }

 private:
  Worker& worker_;
};

class Printer final : public TrainListener {
 public:
  Printer(bool epochs, bool simulated) : epochs_(epochs), per_(simulated ? "samples/s of virtual time" : "samples/s") {}
  void note(const std::string& sentence) override {
    ProgressLine::clear();
    say(stderr, fmt::format("rubato: {}\n", sentence));
  }
  void tested(double epochs, double train_loss, const Evaluation& test, double rate) override {
    if (!epochs_) return;
    ProgressLine::clear();
    say(stdout, fmt::format("epoch {:>3.4g}  train loss {:.4f}  test loss {:.4f}{}  {:.0f} {}\n", epochs, train_loss, test.loss,
                            test.accuracy ? fmt::format("  test accuracy {:.2f}%", *test.accuracy) : "", rate, per_));
    std::fflush(stdout);
  }

 private:
  bool epochs_;
  const char* per_;
};

void print_start(const Trainer& trainer) {
  const Plan& plan = trainer.plan();
  say(stdout,
      fmt::format(
          "rubato {}: {} on {}, schedule {}{}{}, {} batches of {}\n", plan.runtime.simulated ? "simulate" : "train",
          plan.options.model, plan.options.data, plan.options.schedule,
          plan.options.cuts.empty() ? "" : fmt::format(" with {} stages cut at block {}", plan.options.stages, plan.options.cuts),
          find_coupling(plan.options.coupling).topology == Topology::alone
              ? ""
              : fmt::format(", {} replicas coupled by {}", plan.options.replicas, plan.options.coupling),
          plan.total_steps * plan.options.replicas, plan.options.batch_size));
  say(stdout, fmt::format("run folder: {}\n", trainer.folder().string()));
  if (trainer.at_start().step > 0) say(stdout, fmt::format("continuing after batch {}\n", trainer.at_start().step));
  std::fflush(stdout);
}

void print_what_if(const WhatIf& what_if) {
  say(stdout, fmt::format("recorded: {} steps in {:.3f} s; simulated unchanged: {:.3f} s, an error of {:+.1f}%\n",
                          what_if.recorded_steps, what_if.recorded_seconds, what_if.predicted_seconds, 100 * what_if.error()));
}

int run(Plan plan, StopSignals* of_job = nullptr) {
  const bool talk = !plan.options.quiet && !plan.options.json, json = plan.options.json;
  Printer printer(talk, plan.runtime.simulated);
  Trainer trainer(std::move(plan), &printer);
  StopsTrainer stops(trainer);
  if (talk) print_start(trainer);
  if (talk && trainer.plan().what_if) print_what_if(*trainer.plan().what_if);
  {
    std::optional<StopSignals> own;
    StopSignals& signals = of_job != nullptr ? *of_job : own.emplace(one_wish);
    signals.follow(&stops);
    const struct Unfollowed {
      StopSignals& signals;
      ~Unfollowed() { signals.follow(nullptr); }
    } unfollowed{signals};
    const ProgressLine line(trainer, talk);
    trainer.run();
  }
  if (json) say(stdout, trainer.summary());
  if (talk) {
    if (trainer.plan().runtime.simulated) say(stdout, fmt::format("virtual time: {:.6g} s\n", trainer.virtual_seconds()));
    say(stdout,
        fmt::format("{}: {}\n", trainer.stopped() ? "interrupted; continue with --resume" : "done", trainer.folder().string()));
  }
  return static_cast<int>(trainer.stopped() ? ExitCode::interrupted : ExitCode::ok);
}

struct Arguments {
  TrainOptions flags;
  RuntimeChoice runtime;
  std::string config_file, from;
};

int work(Plan plan, bool alone, StopSignals& signals, std::optional<CoordinatorBeside>& coordinator) {
  Worker worker(std::move(plan), [](const std::string& sentence) { say(stderr, fmt::format("rubato: {}\n", sentence)); });
  StopsWorker stops(worker);
  const struct Forgotten {
    StopSignals& signals;
    std::optional<CoordinatorBeside>& coordinator;
    ~Forgotten() {
      signals.follow(nullptr);
      if (coordinator) coordinator->tell_nobody();
    }
  } forgotten{signals, coordinator};
  if (coordinator) coordinator->tell([&worker](ExitCode code) { worker.coordinator_has_ended(code); });
  signals.follow(&stops);
  const JobEnd end = worker.run();
  if (alone && !end.why.empty()) say(stderr, fmt::format("rubato: the job has ended: {}\n", end.why));
  if (coordinator) coordinator->await_end();
  std::fflush(nullptr);
  _exit(static_cast<int>(end.code));  // connections of dead members may never end
}

/// A coordinator that was killed goes on from what it has written.
void resume_after_death(TrainOptions& options, const ProcessChoice& choice) {
  if (choice.incarnation == 0 || !options.resume.empty() || options.run_dir.empty()) return;
  if (CheckpointFolder(std::filesystem::path(options.run_dir) / "checkpoint").newest()) {
    options.resume = std::exchange(options.run_dir, "");
  } else {
    std::filesystem::remove(std::filesystem::path(options.run_dir) / "config.toml");  // it died before its first checkpoint
  }
}

/// A job of whole replicas goes on with as many as there are workers now.
void resume_with(TrainOptions& options, int world) {
  if (options.resume.empty() || options.replicas == world) return;
  if (find_coupling(options.coupling).topology == Topology::alone) return;
  if (options.replicas * options.stages == world && find_schedule(options.schedule).uses_cuts) return;
  options = with_replicas(std::move(options), world);
}

int train_in_processes(TrainOptions options, const ProcessPlace& place) {
  StopSignals signals(one_wish_for_a_job);
  std::optional<CoordinatorBeside> coordinator;
  if (place.rank == 0 && place.starter != "rubato") coordinator.emplace();
  const ProcessChoice choice = choice_of(place);
  resume_with(options, choice.world);
  if (!choice.is_coordinator()) {
    return work(make_plan(options, {}, choice), place.starter != "rubato", signals, coordinator);
  }
  resume_after_death(options, choice);
  const int code = run(make_plan(options, {}, choice), &signals);
  std::fflush(nullptr);
  _exit(code);
}

void refuse_flags_of_jobs(const CLI::App& command) {
  for (const char* flag : {"--metrics", "--when-worker-dies", "--silence", "--patience", "--link-latency-ms"}) {
    if (command.count(flag) == 0) continue;
    throw UsageError(
        fmt::format("{} is for a job of several processes: leave it out, or start the run with `rubato launch`", flag));
  }
}

int train(const CLI::App& command, const Arguments& arguments) {
  TrainOptions options = given_options(command, arguments.flags, arguments.config_file);
  refuse_unread_flags(command, options);
  if (const auto place = place_among_processes()) return train_in_processes(std::move(options), *place);
  refuse_flags_of_jobs(command);
  return run(make_plan(options));
}

/// One of these says what a pass costs.
void refuse_costs_said_twice(const CLI::App& command) {
  std::vector<std::string> given;
  for (const char* flag : {"--from", "--profile", "--block-costs", "--device-gflops"}) {
    if (command.count(flag) > 0) given.emplace_back(flag);
  }
  if (given.size() > 1)
    throw UsageError(fmt::format("{} and {} both say what a pass costs: give one of them", given[0], given[1]));
}

/// Of a run without weights.
void refuse_flags_of_weights(const CLI::App& command) {
  for (const char* flag : {"--probe-bias", "--target-accuracy", "--target-loss", "--averaging"}) {
    if (command.count(flag) == 0) continue;
    throw UsageError(
        fmt::format("{} with --no-compute: nothing is learned that could be looked at; leave one of them out", flag));
  }
}

int simulate(const CLI::App& command, const Arguments& arguments) {
  refuse_flags_of_jobs(command);
  refuse_costs_said_twice(command);
  if (!arguments.runtime.compute) refuse_flags_of_weights(command);
  expect_large_changes_of_memory();  // the replicas' weights are the most of it, not the activations of one pass at a time
  if (arguments.from.empty()) {
    const TrainOptions options = given_options(command, arguments.flags, arguments.config_file);
    refuse_unread_flags(command, options);
    return run(make_plan(options, arguments.runtime));
  }
  if (!arguments.config_file.empty()) throw UsageError("--from takes the configuration of the recorded run: leave --config out");
  const TrainOptions options = given_options(command, arguments.flags, recorded_options(arguments.from));
  refuse_unread_flags(command, options);
  return run(plan_what_if(arguments.from, options, arguments.runtime));
}

}  // namespace

void check_words_of_job(const std::vector<std::string>& words, int workers) {
  if (words.empty() || words.front() != "train") return;  // of which the launcher has a sentence
  CLI::App app;
  Arguments arguments;
  CLI::App* command = app.add_subcommand("train");
  add_option_flags(*command, arguments.flags, arguments.config_file);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return;  // --help
    throw UsageError(sentence_of(app, error));
  }
  TrainOptions options = given_options(*command, arguments.flags, arguments.config_file);
  refuse_unread_flags(*command, options);
  resume_with(options, workers);
  int parts = 1;
  options_of_job(options, workers, parts);
}

void add_train(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "train", "train on the threads of this process, or as one of several (see `rubato launch`); writes a run folder");
  add_option_flags(*command, arguments->flags, arguments->config_file);
  command->callback([=, &chosen] { chosen = [=] { return train(*command, *arguments); }; });
}

void add_simulate(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<Arguments>();
  RuntimeChoice& runtime = arguments->runtime;
  runtime.simulated = true;
  CLI::App* command = app.add_subcommand(
      "simulate", "the same run in virtual time on a simulated platform: real gradients, given or counted costs");
  command->add_option("--from", arguments->from,
                      "what if: the run recorded in this folder with the changes that other flags name; costs and delays as "
                      "recorded");
  PlatformChoice& platform = runtime.platform;
  command
      ->add_option(
          "--platform", platform.platform,
          "uniform:N, gpus:N (a100:N, h100:N), lan-1g:N, wan:N, mixed:N, or a SimGrid file (.xml); role i runs on host i mod N")
      ->capture_default_str();
  command->add_option("--host-speed", platform.host_speeds, "HOST:FACTOR, 3:0.5 computes half as fast; repeatable");
  command->add_option("--straggler", platform.stragglers,
                      "HOST:KIND:TIME, late before each forward pass; fixed, random (exponential) or bursty; repeatable");
  command->add_option("--bandwidth", platform.bandwidth, "of each host's link, 1Gbps or 125MBps; default: the preset's");
  command->add_option("--latency", platform.latency, "from host to host, 50us or 30ms; default: the preset's");
  command->add_option("--cores", platform.cores, "of each host; role i runs on core i: host i / cores")->capture_default_str();
  command->add_option("--dies", platform.deaths, "HOST:TIME, its replica ends where it is; repeatable");
  command->add_option("--joins", platform.arrivals, "HOST:TIME, its replica starts then, from the centre; repeatable");
  command->add_option("--loss", platform.loss, "probability that a message is lost and sent again, after 200 ms or more")
      ->capture_default_str();
  command->add_option("--profile", runtime.profile_file, "costs per block, as `rubato profile -o FILE` writes them");
  command->add_option("--block-costs", runtime.block_costs,
                      "FORWARD:BACKWARD of a batch, 2ms:4ms for every block, or one for each with commas");
  command->add_flag_callback(
      "--no-compute", [arguments] { arguments->runtime.compute = false; },
      "time only: nothing is computed, tens of thousands of roles are possible");
  command->add_option("--device-gflops", runtime.device_gflops,
                      "speed of a host in 1e9 operations per second, without --profile; default: that of the platform's devices");
  add_option_flags(*command, arguments->flags, arguments->config_file);
  command->callback([=, &chosen] { chosen = [=] { return simulate(*command, *arguments); }; });
}

}  // namespace rubato::app
