// `./dev bench engine`: what the engine is worth, as ratios to its own serial loop in the same run.
//
// Every round measures each contender once, in turn, so that a slow moment of the machine hits all; the median over rounds
// counts. Memory is the peak of a process of its own per method.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include <unistd.h>

#include "allocator/allocator.h"
#include "rubato/model/model.h"
#include "rubato/recording/recorder.h"
#include "support.h"

namespace rubato::bench {
namespace {

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
      const torch::Tensor loss = plan_.model.task.loss(x, batch->target);
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
  TwoPlainLoops() : first_(base_options("serial")), second_(base_options("serial")) {}

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

bool has_amx() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("flags")) return line.find("amx_bf16") != std::string::npos;
  }
  return false;
}

int speed(int rounds, int batches) {
  PlainLoop plain(base_options("serial"));
  TwoPlainLoops two_plain;
  Contender serial(base_options("serial")), bf16(base_options("serial", "bf16")), hogwild(base_options("hogwild")),
      ddg(base_options("ddg")), pd_asgd(base_options("pd-asgd"));
  const auto recording = std::filesystem::temp_directory_path() / fmt::format("bench-{}.rec", ::getpid());
  Recorder recorder(recording);
  recorder.begin_segment(0);
  Contender recorded(base_options("hogwild"), &recorder);
  const std::vector<std::pair<std::string, std::function<double(int)>>> contenders = {
      {"plain", [&](int n) { return plain.seconds_per_batch(n); }},
      {"two plain", [&](int n) { return two_plain.seconds_per_batch(n); }},
      {"serial", [&](int n) { return serial.seconds_per_batch(n); }},
      {"hogwild", [&](int n) { return hogwild.seconds_per_batch(n); }},
      {"recorded hogwild", [&](int n) { return recorded.seconds_per_batch(n); }},
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
  const double cost = 100 * (ratio("recorded hogwild", "hogwild") - 1);
  row("cost of recording hogwild", cost, "%", "<= 3%", cost <= 3);
  std::filesystem::remove(recording);
  return 0;
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
  const double serial = peak_bytes(base_options("serial"), 40).second;
  for (const int stages : {2, 3, 4}) {
    TrainOptions options = base_options("ddg");
    options.stages = stages;
    options.cuts = stages == 2 ? "2" : stages == 3 ? "2,3" : "1,2,3";
    const double measured = peak_bytes(options, 40).second, passes = theoretical_passes(options);
    const double bound = 1.1 * (serial + passes);
    row(fmt::format("peak of ddg, {} stages", stages), measured / mib, " MiB",
        fmt::format("<= {:.0f} MiB = 1.1 (serial {:.0f} + passes {:.0f})", bound / mib, serial / mib, passes / mib),
        measured <= bound);
  }
  TrainOptions tiny = base_options("pd-asgd");
  tiny.model = "mlp";
  tiny.batch_size = 16;
  const auto [early, late] = peak_bytes(tiny, 10'000);
  row("growth of pd-asgd (mlp) from step 1,000 to 10,000", 100 * (late / early - 1), "%", "<= 1%", late <= 1.01 * early);
  return 0;
}

}  // namespace
}  // namespace rubato::bench

int main(int argc, char** argv) {
  rubato::prepare_process();
  rubato::prepare_thread(1);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 3, batches = argc > 2 ? std::atoi(argv[2]) : 120;
  if (rounds < 1 || batches < 1) {
    fmt::print(stderr, "usage: bench_engine [rounds, 3] [batches per round, 120]\n");
    return 2;
  }
  rubato::bench::memory();
  return rubato::bench::speed(rounds, batches);
}
