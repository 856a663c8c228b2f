// `./dev bench couplings`: what elastic averaging costs, as ratios in one run.
//
// Every round measures each contender once, in turn; the median over rounds counts.
#include <cstdint>
#include <functional>
#include <map>

#include "rubato/model/model.h"
#include "support.h"

namespace rubato::bench {
namespace {

constexpr std::int64_t never = 1'000'000'000;

TrainOptions elastic(int replicas, std::int64_t period) {
  TrainOptions options = base_options("serial");
  options.coupling = "async-easgd";
  options.replicas = replicas;
  options.period = period;
  options.prefetch = 1;
  return options;
}

int speed(int rounds, int batches) {
  Contender serial(base_options("serial")), hogwild(base_options("hogwild")), ten(elastic(2, 10)), one(elastic(2, 1)),
      alone(elastic(2, never)), sixteen(elastic(16, 10));
  const std::vector<std::pair<std::string, std::function<double(int)>>> contenders = {
      {"serial", [&](int n) { return serial.seconds_per_batch(n); }},
      {"hogwild", [&](int n) { return hogwild.seconds_per_batch(n); }},
      {"alone", [&](int n) { return alone.seconds_per_batch(n / 2); }},
      {"period 10", [&](int n) { return ten.seconds_per_batch(n / 2); }},
      {"period 1", [&](int n) { return one.seconds_per_batch(n / 2); }},
      {"16 replicas", [&](int n) { return sixteen.seconds_per_batch(std::max(1, n / 16)); }}};
  for (const auto& [name, run] : contenders) run(16);
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
      "\nResNet-8, Fashion-MNIST, batch 128, one intra-op thread per role, {} rounds of {} batches; serial {:.1f} ms per "
      "batch\n\n",
      rounds, batches, 1e3 * median(seconds["serial"]));
  fmt::print("| what | measured | wanted | held |\n| --- | --- | --- | --- |\n");
  row("2 replicas that never meet, over serial", ratio("serial", "alone"), "x", "(the machine's limit)", true);
  const double two = ratio("serial", "period 10"), many = ratio("serial", "16 replicas");
  row("async-easgd, 2 replicas, period 10, over serial", two, "x", ">= 1.90x", two >= 1.9);
  row("async-easgd, 16 replicas, period 10, over serial", many, "x", ">= 1.80x", many >= 1.8);
  const double at_ten = 100 * (ratio("period 10", "alone") - 1), at_one = 100 * (ratio("period 1", "alone") - 1);
  row("communication at period 10", at_ten, "%", "<= 1%", at_ten <= 1);
  row("communication at period 1", at_one, "%", "<= 8%", at_one <= 8);
  return 0;
}

/// A wide MLP with batches of one sample: weights are nearly all the memory there is.
TrainOptions heavy(int replicas, std::int64_t period) {
  TrainOptions options = elastic(replicas, period);
  options.model = "mlp";
  options.width = 2048;
  options.batch_size = 1;
  return options;
}

void memory() {
  constexpr double mib = 1024 * 1024;
  const Plan plan = make_plan(heavy(1, 1));
  double weights = 0;
  for (const Block& block : plan.model.blocks) {
    for (const torch::Tensor& parameter : block.module.ptr()->parameters()) weights += static_cast<double>(parameter.nbytes());
  }
  fmt::print("| memory, mlp of {:.0f} MiB of weights | measured | wanted | held |\n| --- | --- | --- | --- |\n", weights / mib);
  for (const int replicas : {2, 4}) {
    TrainOptions options = heavy(replicas, never);
    const double alone = peak_bytes(options, 200).second;
    const double coupled = peak_bytes(heavy(replicas, 1), 200).second;
    // Both hold the centre; the exchange adds what is in flight.
    const double extra = (coupled - alone) / weights;
    row(fmt::format("copies of the weights that exchanging every step adds, {} replicas", replicas), extra, "",
        fmt::format("<= {} (one in flight per replica, one at the centre)", replicas + 1), extra <= replicas + 1);
  }
}

}  // namespace
}  // namespace rubato::bench

int main(int argc, char** argv) {
  rubato::prepare_process();
  rubato::prepare_thread(1);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5, batches = argc > 2 ? std::atoi(argv[2]) : 96;
  if (rounds < 1 || batches < 16) {
    fmt::print(stderr, "usage: bench_couplings [rounds, 5] [batches per round, 96, at least 16]\n");
    return 2;
  }
  rubato::bench::memory();
  return rubato::bench::speed(rounds, batches);
}
