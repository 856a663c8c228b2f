// `./dev bench fidelity`: how far the simulator's times are from those of the same runs on threads of this machine.
//
// Every round takes a profile, then measures every run once; the prediction uses that round's profile. The median over rounds
// counts.
#include <cstdint>
#include <map>

#include "rubato/cost/profile.h"
#include "rubato/io/files.h"
#include "rubato/observe/meter.h"
#include "support.h"

namespace rubato::bench {
namespace {

struct Case {
  std::string name;
  TrainOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> all = {{"serial", base_options("serial")},
                           {"hogwild, 2 workers", base_options("hogwild")},
                           {"ddg, 2 stages", base_options("ddg")},
                           {"pd-asgd 1:2", base_options("pd-asgd")}};
  all[1].options.values = {{"workers", 2}};
  all[3].options.values = {{"forward-threads", 1}, {"backward-threads", 2}};
  return all;
}

/// Virtual seconds per batch of `options`, in time only, with the costs of `profile`.
double predicted(TrainOptions options, const std::filesystem::path& profile, std::int64_t steps, int cores) {
  options.steps = steps;
  const Plan plan =
      make_plan(options, {.simulated = true, .platform = {.cores = cores}, .profile_file = profile.string(), .compute = false});
  StepMeter meter;
  Job job(plan.model, plan.job(), meter);
  const auto runtime = make_runtime(plan, plan.roles);
  job.open(0, steps);
  runtime->run(job.roles());
  return runtime->now() / static_cast<double>(steps);
}

Profile profile_of(const Plan& plan, int cores) {
  const Batch batch = plan.batches->make(0);
  Profile profile = measure_profile(plan.model, plan.stage, plan.store, batch, 8);
  profile.slowdown = measure_slowdown(plan.model, plan.stage, plan.store, batch, cores, 5);
  return profile;
}

int fidelity(int rounds, int batches) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto file = std::filesystem::temp_directory_path() / fmt::format("rubato-fidelity-{}.json", getpid());
  const std::vector<Case> all = cases();
  std::vector<std::unique_ptr<Contender>> contenders;
  for (const Case& one : all) {
    contenders.push_back(std::make_unique<Contender>(one.options));
    contenders.back()->seconds_per_batch(10);
  }
  std::map<std::string, std::vector<double>> errors, measured, slowdowns;
  for (int round = 0; round < rounds; ++round) {
    const Profile profile = profile_of(contenders.front()->plan(), cores);
    write_atomically(file, to_json(profile));
    slowdowns["all"].push_back(profile.slowdown.back());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const double seconds = contenders[i]->seconds_per_batch(batches);
      TrainOptions options = all[i].options;
      options.cuts = contenders[i]->plan().options.cuts.empty() ? "auto" : contenders[i]->plan().options.cuts;
      measured[all[i].name].push_back(seconds);
      errors[all[i].name].push_back(predicted(options, file, batches, cores) / seconds - 1);
    }
  }
  std::filesystem::remove(file);
  fmt::print(
      "\nResNet-8, Fashion-MNIST, batch 128, {} rounds of {} batches on {} cores; all cores busy make a step {:.2f}x as long\n\n",
      rounds, batches, cores, median(slowdowns["all"]));
  fmt::print("| run | measured ms per batch | error of the simulation | wanted | held |\n| --- | --- | --- | --- | --- |\n");
  bool held = true;
  for (const Case& one : all) {
    const double error = median(errors[one.name]);
    held = held && std::abs(error) <= 0.1;
    fmt::print("| {} | {:.1f} | {:+.1f}% | within 10% | {} |\n", one.name, 1e3 * median(measured[one.name]), 100 * error,
               std::abs(error) <= 0.1 ? "yes" : "NO");
  }
  return held ? 0 : 1;
}

}  // namespace
}  // namespace rubato::bench

int main(int argc, char** argv) {
  rubato::prepare_process();
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5, batches = argc > 2 ? std::atoi(argv[2]) : 40;
  return rubato::bench::fidelity(rounds, batches);
}
