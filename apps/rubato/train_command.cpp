#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>

#include "commands.h"
#include "option_flags.h"
#include "progress_line.h"
#include "rubato/core/error.h"
#include "rubato/train/trainer.h"

namespace rubato::app {
namespace {

std::atomic<Trainer*> running{nullptr};

/// First SIGINT or SIGTERM: end soon, with a checkpoint. Second: at once.
void on_signal(int) {
  Trainer* trainer = running;
  if (trainer == nullptr || trainer->stopped()) _exit(static_cast<int>(ExitCode::interrupted));
  trainer->request_stop();
}

/// Signals go to `trainer` while this lives.
class SignalScope {
 public:
  explicit SignalScope(Trainer& trainer) {
    running = &trainer;
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
  }
  ~SignalScope() {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    running = nullptr;
  }
};

class Printer final : public TrainListener {
 public:
  explicit Printer(bool epochs) : epochs_(epochs) {}
  void note(const std::string& sentence) override {
    ProgressLine::clear();
    fmt::print(stderr, "rubato: {}\n", sentence);
  }
  void epoch_done(std::int64_t epoch, double train_loss, const Evaluation& test, double rate) override {
    if (!epochs_) return;
    ProgressLine::clear();
    fmt::print("epoch {:>3}  train loss {:.4f}  test loss {:.4f}  test accuracy {:.2f}%  {:.0f} samples/s\n", epoch, train_loss,
               test.loss, test.accuracy, rate);
    std::fflush(stdout);
  }

 private:
  bool epochs_;
};

void print_start(const Trainer& trainer) {
  const Plan& plan = trainer.plan();
  fmt::print(
      "rubato {}: {} on {}, schedule {}{}{}, {} batches of {}\n", plan.runtime.simulated ? "simulate" : "train",
      plan.options.model, plan.options.data, plan.options.schedule,
      plan.options.cuts.empty() ? "" : fmt::format(" with {} stages cut at block {}", plan.options.stages, plan.options.cuts),
      plan.options.coupling == "none" ? ""
                                      : fmt::format(", {} replicas coupled by {}", plan.options.replicas, plan.options.coupling),
      plan.total_steps * plan.options.replicas, plan.options.batch_size);
  fmt::print("run folder: {}\n", trainer.folder().string());
  if (trainer.first_step() > 0) fmt::print("continuing after batch {}\n", trainer.first_step());
  std::fflush(stdout);
}

int run(const TrainOptions& options, const RuntimeChoice& runtime) {
  const bool talk = !options.quiet && !options.json;
  Printer printer(talk);
  Trainer trainer(make_plan(options, runtime), &printer);
  if (talk) print_start(trainer);
  {
    const SignalScope signals(trainer);
    const ProgressLine line(trainer, talk);
    trainer.run();
  }
  if (options.json) fmt::print("{}", trainer.summary());
  if (talk) {
    fmt::print("{}: {}\n", trainer.stopped() ? "interrupted; continue with --resume" : "done", trainer.folder().string());
  }
  return static_cast<int>(trainer.stopped() ? ExitCode::interrupted : ExitCode::ok);
}

struct Arguments {
  TrainOptions flags;
  RuntimeChoice runtime;
  std::string config_file;
};

}  // namespace

void add_train(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("train", "train on the threads of this process; writes a run folder");
  add_option_flags(*command, arguments->flags, arguments->config_file);
  command->callback([=, &chosen] {
    chosen = [=] { return run(given_options(*command, arguments->flags, arguments->config_file), arguments->runtime); };
  });
}

void add_simulate(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<Arguments>();
  RuntimeChoice& runtime = arguments->runtime;
  runtime.simulated = true;
  CLI::App* command = app.add_subcommand(
      "simulate", "the same run in virtual time on a simulated platform: real gradients, given or counted costs");
  PlatformChoice& platform = runtime.platform;
  command
      ->add_option("--platform", platform.platform,
                   "uniform:N, gpus:N, lan-1g:N, wan:N, mixed:N, or a SimGrid file (.xml); role i runs on host i mod N")
      ->capture_default_str();
  command->add_option("--host-speed", platform.host_speeds, "HOST:FACTOR, 3:0.5 computes half as fast; repeatable");
  command->add_option("--straggler", platform.stragglers,
                      "HOST:KIND:TIME, late before each forward pass; fixed, random (exponential) or bursty; repeatable");
  command->add_option("--bandwidth", platform.bandwidth, "of each host's link, 1Gbps or 125MBps; default: the preset's");
  command->add_option("--latency", platform.latency, "from host to host, 50us or 30ms; default: the preset's");
  command->add_option("--loss", platform.loss, "probability that a message is lost and sent again, after 200 ms or more")
      ->capture_default_str();
  command->add_option("--profile", runtime.profile_file, "costs per block, as `rubato profile -o FILE` writes them");
  command->add_option("--device-gflops", runtime.device_gflops, "speed of a host in 1e9 operations per second, without --profile")
      ->capture_default_str();
  add_option_flags(*command, arguments->flags, arguments->config_file);
  command->callback([=, &chosen] {
    chosen = [=] { return run(given_options(*command, arguments->flags, arguments->config_file), arguments->runtime); };
  });
}

}  // namespace rubato::app
