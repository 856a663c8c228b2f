// `./dev bench engine`: what the engine is worth, as ratios to its own serial loop in the same run.
//
// Every round measures each contender once, in turn, so that a slow moment of the machine hits all; the median over rounds
// counts. Memory is the peak of a process of its own per method.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "allocator/allocator.h"
#include "rubato/train/plan.h"
#include "rubato/train/process.h"

namespace rubato {
namespace {

using Clock = std::chrono::steady_clock;

class Ignore final : public StepObserver {
 public:
  void step(const StepReport&) override {}
};

TrainOptions base_options() {
  TrainOptions options;
  options.model = "resnet8";
  options.stages = 2;
  options.lr = 0.05;
  options.steps = 1'000'000;
  return options;
}

TrainOptions with(const std::string& schedule, const std::string& precision = "fp32") {
  TrainOptions options = base_options();
  options.schedule = schedule;
  options.precision = precision;
  return options;
}

/// One replica and its schedule, kept between rounds.
class Contender {
 public:
  explicit Contender(const TrainOptions& options)
      : plan_(make_plan(options)),
        store_(plan_.model, plan_.store),
        source_(plan_.batches, plan_.options.prefetch),
        replica_{plan_.model, store_, source_, ignore_, plan_.stage, {}},
        schedule_(find_schedule(options.schedule).make(replica_, plan_.schedule)),
        runtime_(make_thread_runtime(plan_.roles)) {}

  /// Seconds per batch over `batches` more batches.
  double seconds_per_batch(std::int64_t batches) {
    source_.open(next_, next_ + batches);
    next_ += batches;
    const auto begin = Clock::now();
    runtime_->run(schedule_->roles());
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(batches);
  }
  const Plan& plan() const { return plan_; }

 private:
  Plan plan_;
  WeightStore store_;
  BatchSource source_;
  Ignore ignore_;
  Replica replica_;
  std::unique_ptr<Schedule> schedule_;
  std::unique_ptr<Runtime> runtime_;
  std::int64_t next_ = 0;
};

/// The loop everybody writes by hand: one module, one optimizer, backward(). What it takes is torch's; the rest of serial's time
/// is the engine's.
class PlainLoop {
 public:
  explicit PlainLoop(const TrainOptions& options) : plan_(make_plan(options)), source_(plan_.batches, plan_.options.prefetch) {
    std::vector<torch::Tensor> parameters;
    for (const Block& block : plan_.model.blocks) {
      blocks_.push_back(block.module.clone());
      blocks_.back().ptr()->train();
      for (const torch::Tensor& parameter : blocks_.back().ptr()->parameters()) parameters.push_back(parameter);
    }
    optimizer_ = make_optimizer(plan_.store.optimizer, parameters);
  }

  double seconds_per_batch(std::int64_t batches) {
    source_.open(next_, next_ + batches);
    next_ += batches;
    Bystander me;
    const auto begin = Clock::now();
    while (const auto batch = source_.next(me)) {
      torch::Tensor x = batch->input;
      for (auto& block : blocks_) x = block.forward<torch::Tensor>(x);
      const torch::Tensor loss = plan_.model.loss(x, batch->target);
      optimizer_->zero_grad();
      loss.backward();
      optimizer_->step();
      loss_ += loss.item<double>();
    }
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(batches);
  }

 private:
  Plan plan_;
  BatchSource source_;
  std::vector<torch::nn::AnyModule> blocks_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  std::int64_t next_ = 0;
  double loss_ = 0;
};

/// Two plain loops side by side that share nothing: what the second processor of this machine is worth, the limit of all others.
class TwoPlainLoops {
 public:
  TwoPlainLoops() : first_(with("serial")), second_(with("serial")) {}

  double seconds_per_batch(std::int64_t batches) {
    const auto begin = Clock::now();
    {
      const auto run = [batches](PlainLoop& loop) {
        prepare_thread(1);
        loop.seconds_per_batch(batches);
      };
      std::jthread first([&] { run(first_); }), second([&] { run(second_); });
    }
    return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(2 * batches);
  }

 private:
  PlainLoop first_, second_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool has_amx() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("flags")) return line.find("amx_bf16") != std::string::npos;
  }
  return false;
}

void row(const std::string& name, double value, const std::string& unit, const std::string& wanted, bool held) {
  fmt::print("| {} | {:.3f}{} | {} | {} |\n", name, value, unit, wanted, held ? "yes" : "NO");
}

int speed(int rounds, int batches) {
  PlainLoop plain(with("serial"));
  TwoPlainLoops two_plain;
  Contender serial(with("serial")), bf16(with("serial", "bf16")), hogwild(with("hogwild")), ddg(with("ddg")),
      pd_asgd(with("pd-asgd"));
  const std::vector<std::pair<std::string, std::function<double(int)>>> contenders = {
      {"plain", [&](int n) { return plain.seconds_per_batch(n); }},
      {"two plain", [&](int n) { return two_plain.seconds_per_batch(n); }},
      {"serial", [&](int n) { return serial.seconds_per_batch(n); }},
      {"hogwild", [&](int n) { return hogwild.seconds_per_batch(n); }},
      {"ddg", [&](int n) { return ddg.seconds_per_batch(n); }},
      {"pd-asgd", [&](int n) { return pd_asgd.seconds_per_batch(n); }},
      {"bf16", [&](int n) { return bf16.seconds_per_batch(n); }}};
  for (const auto& [name, run] : contenders) run(5);
  std::map<std::string, std::vector<double>> seconds;
  for (int round = 0; round < rounds; ++round) {
    for (const auto& [name, run] : contenders) seconds[name].push_back(run(batches));
  }
  const auto ratio = [&](const std::string& above, const std::string& below) {
    std::vector<double> ratios;  // within a round: both met the machine in the same mood
    for (int round = 0; round < rounds; ++round) ratios.push_back(seconds[above][round] / seconds[below][round]);
    return median(ratios);
  };
  fmt::print(
      "ResNet-8, Fashion-MNIST, batch 128, one intra-op thread per role, {} rounds of {} batches; serial {:.1f} ms per batch; "
      "ddg cut at block {}\n\n",
      rounds, batches, 1e3 * median(seconds["serial"]), ddg.plan().options.cuts);
  fmt::print("| what | measured | wanted | held |\n| --- | --- | --- | --- |\n");
  row("two plain loops that share nothing, over one", ratio("plain", "two plain"), "x", "(the machine's limit)", true);
  row("hogwild, 2 workers, over serial", ratio("serial", "hogwild"), "x", ">= 1.92x", ratio("serial", "hogwild") >= 1.92);
  row("ddg, 2 stages, over serial", ratio("serial", "ddg"), "x", ">= 1.88x", ratio("serial", "ddg") >= 1.88);
  row("pd-asgd 1:2, over serial", ratio("serial", "pd-asgd"), "x", ">= 1.78x", ratio("serial", "pd-asgd") >= 1.78);
  row("bf16 over fp32, serial", ratio("serial", "bf16"), "x", has_amx() ? ">= 1.60x" : "(no AMX here)",
      !has_amx() || ratio("serial", "bf16") >= 1.6);
  const double overhead = 100 * (ratio("serial", "plain") - 1);
  row("engine's own part of serial", overhead, "%", "<= 2%", overhead <= 2);
  return 0;
}

/// Peak resident bytes of a process that runs `batches` batches; the first of the pair is after a tenth of them.
std::pair<double, double> peak_bytes(const TrainOptions& options, std::int64_t batches) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) return {0, 0};
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    Contender contender(options);
    double peaks[2];
    const auto peak = [] {
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
      return static_cast<double>(usage.ru_maxrss) * 1024;
    };
    contender.seconds_per_batch(std::max<std::int64_t>(1, batches / 10));
    peaks[0] = peak();
    contender.seconds_per_batch(batches - batches / 10);
    peaks[1] = peak();
    const ssize_t written = write(pipe_ends[1], peaks, sizeof peaks);
    _exit(written == sizeof peaks ? 0 : 1);
  }
  close(pipe_ends[1]);
  double peaks[2] = {0, 0};
  const ssize_t got = read(pipe_ends[0], peaks, sizeof peaks);
  close(pipe_ends[0]);
  waitpid(child, nullptr, 0);
  return got == sizeof peaks ? std::pair{peaks[0], peaks[1]} : std::pair{0.0, 0.0};
}

/// The passes that theory lets DDG hold: module k of K has K - k + 1 in flight, K (K + 1) / 2 module-passes in all. The size of
/// one pass of each module is measured by holding some.
double theoretical_passes(const TrainOptions& options) {
  constexpr int held = 4;
  const Plan plan = make_plan(options);
  const WeightStore store(plan.model, plan.store);
  std::vector<int> edges = {0};
  edges.insert(edges.end(), plan.schedule.cuts.begin(), plan.schedule.cuts.end());
  edges.push_back(store.block_count());
  Bystander me;
  torch::Tensor input = plan.batches->make(0).input;
  double bytes = 0;
  const int stages = static_cast<int>(edges.size()) - 1;
  for (int k = 0; k < stages; ++k) {
    const Stage stage(plan.model, edges[k], edges[k + 1], plan.stage);
    std::vector<Snapshot> weights;
    for (int block = stage.first(); block < stage.last(); ++block) weights.push_back(store.read(me, block));
    std::vector<Pass> passes;
    passes.push_back(stage.forward(weights, input, 0));
    const double before = bytes_in_use();
    for (int i = 0; i < held; ++i) passes.push_back(stage.forward(weights, input, i));
    bytes += (stages - k) * (bytes_in_use() - before) / held;
    input = passes.back().output();
  }
  return bytes;
}

int memory() {
  constexpr double mib = 1024 * 1024;
  fmt::print("\n| memory | measured | wanted | held |\n| --- | --- | --- | --- |\n");
  const double serial = peak_bytes(with("serial"), 40).second;
  for (const int stages : {2, 3, 4}) {
    TrainOptions options = with("ddg");
    options.stages = stages;
    options.cuts = stages == 2 ? "2" : stages == 3 ? "2,3" : "1,2,3";
    const double measured = peak_bytes(options, 40).second, passes = theoretical_passes(options);
    const double bound = 1.1 * (serial + passes);
    row(fmt::format("peak of ddg, {} stages", stages), measured / mib, " MiB",
        fmt::format("<= {:.0f} MiB = 1.1 (serial {:.0f} + passes {:.0f})", bound / mib, serial / mib, passes / mib),
        measured <= bound);
  }
  TrainOptions tiny = with("pd-asgd");
  tiny.model = "mlp";
  tiny.batch_size = 16;
  const auto [early, late] = peak_bytes(tiny, 10'000);
  row("growth of pd-asgd (mlp) from step 1,000 to 10,000", 100 * (late / early - 1), "%", "<= 1%", late <= 1.01 * early);
  return 0;
}

}  // namespace
}  // namespace rubato

int main(int argc, char** argv) {
  rubato::prepare_process();
  rubato::prepare_thread(1);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 3, batches = argc > 2 ? std::atoi(argv[2]) : 120;
  if (rounds < 1 || batches < 1) {
    fmt::print(stderr, "usage: bench_engine [rounds, 3] [batches per round, 120]\n");
    return 2;
  }
  rubato::memory();
  return rubato::speed(rounds, batches);
}
