#include "rubato/job/plan.h"

#include <fmt/format.h>

#include <sys/sysinfo.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <thread>

#include "rubato/core/error.h"
#include "rubato/core/random.h"
#include "rubato/core/read_file.h"
#include "rubato/cost/cuts.h"
#include "rubato/cost/profile.h"
#include "rubato/model/process.h"
#include "rubato/zoo/zoo.h"

namespace rubato {
namespace {

constexpr std::int64_t least_steps_between_tests = 20;

Model build_model(const TrainOptions& o, const Dataset& data) {
  if (find_model(o.model).text != data.is_text()) {
    throw UsageError(fmt::format("--model {} does not fit --data {}: a {} data set needs a {} model, see `rubato list models`",
                                 o.model, o.data, data.is_text() ? "text" : "image", data.is_text() ? "text" : "image"));
  }
  ZooOptions zoo{.model = o.model,
                 .classes = data.classes,
                 .width = o.width,
                 .dropout = o.dropout.value_or(-1),
                 .seed = o.seed,
                 .values = o.values};
  if (data.is_text()) {
    zoo.sequence_length = data.inputs.size(1);
  } else {
    zoo.channels = data.inputs.size(1);
    zoo.image_size = data.inputs.size(2);
    if (data.inputs.size(2) != data.inputs.size(3)) {
      throw DataError(fmt::format("the images of {} are {} x {}: the models here take square ones; crop or pad them", o.data,
                                  data.inputs.size(2), data.inputs.size(3)));
    }
  }
  return make_model(zoo);
}

/// Tokens mean what they meant where the weights come from.
DataOptions data_options(const TrainOptions& o) {
  DataOptions data{.sequence_length = o.sequence_length, .values = o.values};
  if (!o.init_from.empty()) data.vocabulary = find_vocabulary(find_weights(o.init_from));
  return data;
}

/// Or the first test would fail, after an epoch.
void check_same_form(const DataSplit& data) {
  const auto train = data.train.inputs.sizes().slice(1), test = data.test.inputs.sizes().slice(1);
  if (train == test) return;
  throw DataError(fmt::format("samples for training are of shape {}, those for tests of shape {}: both must be the same",
                              c10::str(train), c10::str(test)));
}

torch::Device parse_device(const std::string& name) {
  torch::Device device = torch::kCPU;
  try {
    device = torch::Device(name);
  } catch (const c10::Error&) {
    throw UsageError("--device '" + name + "' is not cpu, cuda or cuda:N");
  }
  if (device.is_cuda() && !torch::cuda::is_available()) {
    throw UsageError("--device " + name + ": this libtorch sees no CUDA device; use --device cpu");
  }
  if (!device.is_cpu() && !device.is_cuda()) throw UsageError("--device '" + name + "' is not cpu, cuda or cuda:N");
  return device;
}

LearningRate learning_rate(const TrainOptions& o, const Plan& plan) {
  LearningRate rate{.base = *o.lr,
                    .schedule = o.lr_schedule,
                    .warmup = plan.steps_in(o.warmup_epochs),
                    .total = plan.total_steps,
                    .step_every = plan.steps_in(o.lr_step_epochs),
                    .step_factor = o.lr_step_factor};
  return rate;
}

/// `samples` samples of zeros: shapes and operations do not depend on what they hold.
Batch blank_batch(const Plan& plan, std::int64_t samples) {
  const Dataset& data = plan.data->train;
  const auto blank = [&](const torch::Tensor& table) {
    std::vector<std::int64_t> sizes = table.sizes().vec();
    sizes.front() = samples;
    return table.new_zeros(sizes);
  };
  const torch::Tensor input = blank(data.inputs);
  return {0, 0, data.is_text() ? input : input.to(torch::kFloat32), blank(data.targets)};
}

/// Operations per second of a host where they are counted.
double device_speed(const Plan& plan) {
  if (const auto given = plan.runtime.device_gflops) {
    if (!(*given > 0)) throw UsageError("--device-gflops must be above 0");
    return *given * 1e9;
  }
  return plan.stage.bf16 ? plan.platform.bf16_operations_per_second : plan.platform.operations_per_second;
}

/// Operations are counted with few samples, since they are linear in their number.
Profile counted_profile(const Plan& plan) {
  StageOptions real = plan.stage;
  real.dry_run = nullptr;
  real.device = torch::kCPU;
  const auto count = [&](std::int64_t samples) {
    return count_profile(plan.model, real, blank_batch(plan, samples), device_speed(plan));
  };
  Profile profile = count(2);
  const Profile twice = count(4);
  const double more = (static_cast<double>(plan.options.batch_size) - 2) / 2;
  const auto extend = [more](double& of_two, double of_four) { of_two += more * (of_four - of_two); };
  for (std::size_t i = 0; i < profile.blocks.size(); ++i) {
    BlockProfile& block = profile.blocks[i];
    extend(block.flops, twice.blocks[i].flops);
    extend(block.seconds.forward, twice.blocks[i].seconds.forward);
    extend(block.seconds.backward, twice.blocks[i].seconds.backward);
  }
  extend(profile.loss_flops, twice.loss_flops);
  extend(profile.loss_seconds, twice.loss_seconds);
  return profile;
}

Profile read_profile(const Plan& plan) {
  const std::string& name = plan.runtime.profile_file;
  Profile profile = profile_from_json(whole_file(name), name);
  if (profile.blocks.size() != plan.model.blocks.size()) {
    throw DataError(fmt::format("profile {} has {} blocks, the model {} has {}: make one with `rubato profile --model {} -o {}`",
                                name, profile.blocks.size(), plan.model.name, plan.model.blocks.size(), plan.options.model,
                                name));
  }
  return profile;
}

/// Platform, costs and, where only time counts, shapes in place of tensors.
void simulate_on(Plan& plan) {
  const RuntimeChoice& runtime = plan.runtime;
  plan.platform = parse_platform(runtime.platform);
  if (!plan.platform.absences.empty() && !find_coupling(plan.options.coupling).changes_members) {
    throw UsageError(
        fmt::format("--dies and --joins with --coupling {}: its replicas wait for each other; use async-easgd, eamsgd "
                    "or downpour",
                    plan.options.coupling));
  }
  if (!plan.platform.absences.empty() && plan.options.record) {
    throw UsageError(
        "--record with --dies or --joins: threads that replay a run have no devices that die; leave one of them out");
  }
  const Profile counted = counted_profile(plan);
  plan.runtime.device_gflops = device_speed(plan) / 1e9;
  if (!runtime.block_costs.empty()) {
    plan.costs = parse_block_costs(runtime.block_costs, plan.model.blocks.size());  // the loss is in the last block's
  } else if (!runtime.profile_file.empty()) {
    const Profile profile = read_profile(plan);
    plan.costs = profile.costs();
    plan.work.loss = profile.loss_seconds;
    plan.platform.slowdown = profile.slowdown;
  } else {
    plan.costs = counted.costs();
    plan.work.loss = counted.loss_seconds;
  }
  plan.work.per_operation = seconds_per_operation(plan.costs, counted.flops());
  if (runtime.compute) return;
  if (!plan.options.init_from.empty() || !plan.options.resume.empty() || plan.options.record) {
    throw UsageError("--no-compute has no weights: leave --init-from, --resume and --record out");
  }
  plan.stage.dry_run = std::make_shared<const ActivationShapes>(activation_shapes(plan.model, blank_batch(plan, 2).input));
  plan.stage.device = plan.store.device = torch::kMeta;
}

/// Parts that a batch is passed in; nothing: it is passed whole.
std::optional<std::int64_t> micro_batches(const Plan& plan) {
  const OptionValues& values = plan.options.values;
  return values.has("micro-batches") ? std::optional(values.get<std::int64_t>("micro-batches")) : std::nullopt;
}

/// Each has at least one sample of every full batch.
void check_parts(const TrainOptions& o) {
  if (!o.values.has("micro-batches") || o.values.get<std::int64_t>("micro-batches") <= o.batch_size) return;
  throw UsageError(fmt::format("--micro-batches {} of batches of {} samples: give at most as many parts as there are samples",
                               o.values.get<std::int64_t>("micro-batches"), o.batch_size));
}

/// Of one process; beyond it no system gives threads.
constexpr std::int64_t most_threads = 8192;

/// Before data are loaded and a model is made for each.
void check_threads(const TrainOptions& o, bool among_processes) {
  const ScheduleEntry& schedule = find_schedule(o.schedule);
  const std::int64_t width = schedule.uses_cuts ? o.stages : schedule.width({.name = o.schedule, .values = o.values});
  const std::int64_t replicas = among_processes ? 1 : o.replicas;
  if (width * replicas <= most_threads) return;
  throw UsageError(
      fmt::format("{} replicas with {} threads each are more than the {} that a process can have: take fewer, or "
                  "`rubato simulate`",
                  replicas, width, most_threads));
}

/// What cannot fit is said before the first replica is made: a system that has promised more memory than it has kills without a
/// word.
void check_memory(const Plan& plan) {
  struct sysinfo system = {};
  if (plan.dry_run() || !plan.stage.device.is_cpu() || ::sysinfo(&system) != 0) return;
  double weights = 0;
  for (const Block& block : plan.model.blocks) {
    for (const torch::Tensor& parameter : block.module.ptr()->parameters()) weights += static_cast<double>(parameter.nbytes());
  }
  const int replicas = plan.processes ? 1 : plan.options.replicas;
  const double least = 2 * weights * replicas;  // and gradients of the same size
  const double there = (static_cast<double>(system.totalram) + static_cast<double>(system.totalswap)) * system.mem_unit;
  if (least <= there) return;
  throw Error(
      ExitCode::internal,
      fmt::format("out of memory: weights and gradients of {} replicas take {:.1f} GB at least, and this machine has {:.1f}: "
                  "try a smaller model, or fewer replicas",
                  replicas, least / 1e9, there / 1e9));
}

/// Samples of the shortest pass that this run will come to: an epoch's last batch is what is left.
std::int64_t shortest_pass(const Plan& plan) {
  const TrainOptions& o = plan.options;
  const std::int64_t all = plan.data->train.size(), batches = plan.batches->batches_per_epoch();
  const bool comes_to_the_last = plan.total_steps * o.replicas >= batches;
  const std::int64_t samples = comes_to_the_last ? all - (batches - 1) * o.batch_size : o.batch_size;
  return std::max<std::int64_t>(1, samples / micro_batches(plan).value_or(1));
}

/// What normalises over a batch cannot learn from one sample: that is said now, not at the end of the first epoch.
void check_shortest_pass(const Plan& plan) {
  if (plan.dry_run() || shortest_pass(plan) > 1) return;
  Bystander me;
  StageOptions options = plan.stage;
  options.stale_weights = StaleWeights::stashed;
  const Stage stage(plan.model, 0, static_cast<int>(plan.model.blocks.size()), options);
  const WeightStore store(plan.model, plan.store);
  std::vector<Snapshot> weights;
  for (int block = 0; block < store.block_count(); ++block) weights.push_back(store.read(me, block));
  try {
    stage.forward(std::move(weights), blank_batch(plan, 1).input, 0);
  } catch (const DataError& error) {
    const auto parts = micro_batches(plan);
    throw UsageError(
        fmt::format("{} samples in batches of {}{} come to a pass of one sample, but {}: choose another --batch-size",
                    plan.data->train.size(), plan.options.batch_size, parts ? fmt::format(" and {} micro-batches", *parts) : "",
                    error.what()));
  }
}

/// Costs to balance stages by: measured where the run is on threads, the simulated ones in virtual time.
std::vector<int> choose_cuts(const Plan& plan) {
  const TrainOptions& o = plan.options;
  if (o.stages == 1) return {};
  if (o.cuts != "auto") return parse_cuts(o.cuts, o.stages);
  if (plan.runtime.simulated) {
    std::vector<BlockCost> costs = plan.costs;
    costs.back().forward += plan.work.loss;
    return balanced_cuts(costs, o.stages);
  }
  if (plan.processes)
    return balanced_cuts(counted_profile(plan).costs_of_stages(), o.stages);  // the same in each, which measured ones are not
  const Profile profile = measure_profile(plan.model, plan.stage, plan.store, plan.batches->make(0), 3);
  return balanced_cuts(profile.costs_of_stages(), o.stages);
}

/// Of a replica; what a centre is averaged by belongs to the coupling.
AveragingOptions averaging(const OptionValues& values) {
  if (!values.has("averaging")) return {};
  return {parse_averaging(values.get<std::string>("averaging")), values.get<double>("averaging-rate")};
}

StoreOptions store_options(const TrainOptions& o, const Plan& plan) {
  return {.optimizer = {.name = o.optimizer,
                        .learning_rate = learning_rate(o, plan),
                        .momentum = *o.momentum,
                        .nesterov = o.nesterov,
                        .momentum_form = parse_momentum_form(o.momentum_form),
                        .weight_decay = *o.weight_decay,
                        .clip_norm = o.clip_norm,
                        .clip_value = o.clip_value,
                        .values = o.values},
          .averaging = averaging(o.values),
          .scale_by_staleness = o.staleness_scaling == "inverse",
          .device = plan.stage.device};
}

ScheduleOptions schedule_options(const TrainOptions& o, const Plan& plan) {
  return {.name = o.schedule,
          .publish = parse_publish(o.publish),
          .cuts = choose_cuts(plan),
          .classes = plan.data->train.classes,
          .values = o.values};
}

CouplingOptions coupling_options(const TrainOptions& o) {
  return {.name = o.coupling, .replicas = o.replicas, .period = std::max<std::int64_t>(1, *o.period), .values = o.values};
}

/// What the processes of a job do not have together.
void refuse_in_processes(const TrainOptions& o) {
  if (o.record) throw UsageError("--record in several processes: nobody sees the order of them all; record a run on threads");
  if (o.probe_bias > 0) throw UsageError("--probe-bias in several processes: use `rubato train` or `rubato simulate`");
  if (o.trace) throw UsageError("--trace in several processes: `rubato status` shows what each does; trace a run on threads");
}

std::string cuts_text(const std::vector<int>& cuts) {
  std::vector<std::string> parts;
  for (const int cut : cuts) parts.push_back(std::to_string(cut));
  return join(parts, ",");
}

}  // namespace

TrainOptions options_of_job(TrainOptions options, int world, int& parts) {
  parts = divide_among(options, world);
  refuse_in_processes(options);
  options = resolve(std::move(options));
  check_job(options, parts);
  return options;
}

Plan make_plan(const TrainOptions& given, const RuntimeChoice& runtime, const std::optional<ProcessChoice>& processes) {
  int parts = 1;
  Plan plan{.options = processes ? options_of_job(given, processes->world, parts) : resolve(given),
            .runtime = runtime,
            .processes = processes};
  TrainOptions& o = plan.options;
  if (processes) plan.place = placement_of(*processes, o, parts);
  check_parts(o);
  if (!runtime.simulated) check_threads(o, processes.has_value());
  prepare_thread(o.threads_per_role);
  const bool dry_run = runtime.simulated && !runtime.compute && find_dataset(o.data).blank && o.data_dir.empty();
  plan.data =
      std::make_shared<const DataSplit>(dry_run ? dry_run_dataset(o.data) : load_dataset(o.data, o.data_dir, data_options(o)));
  check_same_form(*plan.data);
  plan.model = build_model(o, plan.data->train);
  if (o.target_accuracy && !plan.model.task.count) {
    throw UsageError(fmt::format("--target-accuracy: model {} has a loss and no accuracy; use --target-loss", o.model));
  }
  const std::shared_ptr<const Dataset> train(plan.data, &plan.data->train);
  plan.batches = std::make_shared<const BatchMaker>(train, BatchOptions{.batch_size = o.batch_size,
                                                                        .seed = o.seed,
                                                                        .shuffle = !o.no_shuffle,
                                                                        .augment = o.augment,
                                                                        .prefetch = o.prefetch,
                                                                        .dry_run = runtime.simulated && !runtime.compute});
  const std::int64_t batches = plan.batches->batches_per_epoch(), steps_per_epoch = (batches + o.replicas - 1) / o.replicas;
  plan.total_steps = o.steps.value_or((o.epochs * batches + o.replicas - 1) / o.replicas);
  const std::int64_t least = o.replicas > 1 ? least_steps_between_tests : 1;
  plan.test_every = (least + steps_per_epoch - 1) / steps_per_epoch * steps_per_epoch;
  if (o.evaluate_every < 0) plan.test_every = std::max<std::int64_t>(1, plan.total_steps);
  plan.stage = {.seed = o.seed,
                .stale_weights = parse_stale_weights(o.stale_weights),
                .bf16 = o.precision == "bf16",
                .channels_last = o.memory_format == "channels-last",
                .device = parse_device(o.device)};
  plan.store = store_options(o, plan);
  plan.store.optimizer.check();
  if (runtime.simulated) simulate_on(plan);
  check_memory(plan);
  check_shortest_pass(plan);
  plan.schedule = schedule_options(o, plan);
  check(plan.schedule, static_cast<int>(plan.model.blocks.size()));
  plan.coupling = coupling_options(o);
  check(plan.coupling, *o.lr);
  o.cuts = cuts_text(plan.schedule.cuts);
  const int processors = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / o.threads_per_role);
  plan.roles = {.seed = o.seed,
                .processors = plan.stage.device.is_cpu() ? processors : 0,
                .on_thread_start = [threads = o.threads_per_role] { prepare_thread(threads); },
                .one_thread = true};
  if (plan.dry_run()) plan.roles.stack_kib = 128;
  for (const std::string& delay : o.inject_delay) plan.roles.delays.push_back(parse_delay(delay));
  return plan;
}

double Plan::epochs_at(std::int64_t step) const {
  return static_cast<double>(step * options.replicas) / static_cast<double>(batches->batches_per_epoch());
}

std::int64_t Plan::epochs_until(std::int64_t step) const {
  return step * options.replicas / batches->batches_per_epoch();
}

double Plan::steps_in(double epochs) const {
  return epochs * static_cast<double>(batches->batches_per_epoch()) / options.replicas;
}

std::unique_ptr<Runtime> make_runtime(const Plan& plan, const RuntimeOptions& roles) {
  return plan.runtime.simulated ? make_simulator(plan.platform, roles) : make_thread_runtime(roles);
}

/// Replicas share one order of the data and take turns in it, or each has an order of its own.
JobParts Plan::job() const {
  JobParts parts{.schedule = schedule, .coupling = coupling, .store = store, .stage = stage, .costs = costs, .work = work};
  parts.prefetch = runtime.simulated && coupling.replicas > 1 ? 0 : options.prefetch;  // one thread for each would be many
  parts.probe_every = dry_run() ? 0 : options.probe_bias;
  parts.place = place;
  for (int i = 0; i < coupling.replicas; ++i) {
    if (options.sampling == "shard" || i == 0) {
      parts.batches.push_back(batches);
    } else {
      BatchOptions own = batches->options();
      own.seed = replica_seed(own.seed, i);
      parts.batches.push_back(std::make_shared<const BatchMaker>(std::shared_ptr<const Dataset>(data, &data->train), own));
    }
    if (options.sampling == "shard") parts.shards.push_back({i, coupling.replicas});
  }
  return parts;
}

}  // namespace rubato
