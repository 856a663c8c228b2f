#include "rubato/job/job.h"

#include <fmt/format.h>

#include <cstdint>
#include <limits>

#include "rubato/context/last_to_leave.h"
#include "rubato/core/error.h"
#include "rubato/core/random.h"
#include "rubato/model/digest.h"
#include "rubato/model/memory_error.h"
#include "rubato/model/model.h"

namespace rubato {
namespace {

constexpr int statistics_batches = 32;

std::vector<std::string> prefixes_of(int replicas) {
  std::vector<std::string> prefixes(1);
  if (replicas == 1) return prefixes;
  prefixes.clear();
  for (int i = 0; i < replicas; ++i) prefixes.push_back(fmt::format("r{}/", i));
  return prefixes;
}

bool has_buffers(const Model& model) {
  for (const Block& block : model.blocks) {
    if (!block.module.ptr()->buffers().empty()) return true;
  }
  return false;
}

}  // namespace

struct Job::Member {
  Member(const Model& model, const StoreOptions& options, std::shared_ptr<const BatchMaker> batches, std::int64_t prefetch,
         Shard shard, const std::shared_ptr<StopTogether>& together)
      : store(model, options), source(std::move(batches), prefetch, shard, together, options.name), at_work(options.name) {}

  WeightStore store;
  BatchSource source;
  std::unique_ptr<Replica> replica;
  std::unique_ptr<Schedule> schedule;
  LastToLeave at_work;
  bool left = false;  ///< in this segment
};

Job::Job(const Model& model, JobParts parts, StepObserver& observer) : model_(model), parts_(std::move(parts)) {
  check(parts_.schedule, static_cast<int>(model.blocks.size()));
  parts_.schedule = completed(std::move(parts_.schedule));
  parts_.coupling = completed(std::move(parts_.coupling), parts_.store.optimizer.learning_rate.base);
  const int count = parts_.coupling.replicas;
  const Placement& place = parts_.place;
  const ScheduleEntry& entry = find_schedule(parts_.schedule.name);
  parts_.coupling.ranges = ranges_here();
  parts_.coupling.prefixes = prefixes_of(count);
  parts_.coupling.centre_here = place.who != Placement::worker;
  // Where workers come and go the centre stays until it is told to end.
  parts_.coupling.parts = place.keeps_replicas ? place.parts : std::numeric_limits<int>::max();
  parts_.coupling.one_step_at_a_time = entry.uses_cuts || entry.width(parts_.schedule) == 1;
  std::vector<WeightStore*> stores;
  for (int i = 0; i < count; ++i) {
    members_.push_back(is_here(i) ? make_member(i) : nullptr);
    stores.push_back(members_.back() ? &members_.back()->store : nullptr);
  }
  coupling_ =
      find_coupling(parts_.coupling.name).make({model, parts_.store, stores, parts_.coupling.centre_here}, parts_.coupling);
  for (int i = 0; i < count; ++i) {
    if (!is_here(i)) continue;
    Member& member = *members_[static_cast<std::size_t>(i)];
    StageOptions stage = parts_.stage;
    stage.seed = replica_seed(stage.seed, i);
    member.replica =
        std::unique_ptr<Replica>(new Replica{model, member.store, member.source, observer, stage, parts_.costs, hooks_of(i),
                                             parts_.coupling.prefixes[static_cast<std::size_t>(i)], place.stage, parts_.work});
    member.schedule = entry.make(*member.replica, parts_.schedule);
  }
}

bool Job::is_here(int replica) const {
  const Placement& place = parts_.place;
  return place.who == Placement::all || (place.who == Placement::coordinator ? place.keeps_replicas : place.replica == replica);
}

/// What the roles of this process step together.
std::vector<BlockRange> Job::ranges_here() const {
  const auto ranges = stage_ranges(parts_.schedule.cuts, static_cast<int>(model_.blocks.size()));
  const auto& stage = parts_.place.stage;
  return stage ? std::vector{ranges.at(static_cast<std::size_t>(*stage))} : ranges;
}

std::unique_ptr<Job::Member> Job::make_member(int replica) {
  const auto index = static_cast<std::size_t>(replica);
  const Shard shard = parts_.shards.empty() ? Shard{} : parts_.shards.at(index);
  StoreOptions store = parts_.store;
  store.name = fmt::format("r{}", replica);
  const auto& stage = parts_.place.stage;
  if (stage) store.held = {ranges_here().front().first, ranges_here().front().last};
  const bool takes_batches = parts_.place.who != Placement::coordinator && stage.value_or(0) == 0;
  return std::make_unique<Member>(model_, store, parts_.batches.at(index), takes_batches ? parts_.prefetch : 0, shard, together_);
}

Job::~Job() = default;

ReplicaHooks& Job::hooks_of(int replica) {
  ReplicaHooks& hooks = coupling_->hooks(replica);
  if (replica > 0 || parts_.probe_every == 0) return hooks;
  const Shard shard = parts_.shards.empty() ? Shard{} : parts_.shards.front();
  probe_ = std::make_unique<BiasProbe>(
      hooks, model_, parts_.stage, parts_.probe_every,
      [maker = parts_.batches.front(), shard](std::int64_t index) { return maker->make(index * shard.count + shard.index); });
  return *probe_;
}

std::optional<BiasReport> Job::bias() const {
  return probe_ ? std::optional(probe_->report()) : std::nullopt;
}

const WeightStore& Job::store(int replica) const {
  return members_.at(static_cast<std::size_t>(replica))->store;
}

WeightStore& Job::store(int replica) {
  return members_.at(static_cast<std::size_t>(replica))->store;
}

BatchSource& Job::source(int replica) {
  return members_.at(static_cast<std::size_t>(replica))->source;
}

void Job::open(std::int64_t begin, std::int64_t end) {
  begin_ = begin;
  evaluation_weights_ = nullptr;
  for (const auto& member : members_) {
    if (!member) continue;
    member->source.open(begin, end);
    member->left = false;
  }
}

std::int64_t Job::position() const {
  std::int64_t position = 0;
  for (const auto& member : members_) {
    if (member) position = std::max(position, member->source.position());
  }
  return position;
}

std::vector<Role> Job::roles() {
  const int width = find_schedule(parts_.schedule.name).width(parts_.schedule);
  const CouplingEntry& coupling = find_coupling(parts_.coupling.name);
  const bool may_change = coupling.changes_members, has_centre = coupling.topology == Topology::centre;
  const bool at_coordinator = parts_.place.who == Placement::coordinator;
  std::vector<Role> all;
  for (int i = 0; i < replicas() && !at_coordinator; ++i) {
    if (!is_here(i)) continue;
    Member& member = *members_[static_cast<std::size_t>(i)];
    std::vector<Role> roles = member.schedule->roles();
    member.at_work.expect(static_cast<int>(roles.size()));
    for (Role& role : roles) {
      all.push_back({.name = role.name,
                     .run =
                         [this, i, &member, run = std::move(role.run)](Context& me) {
                           run(me);
                           if (member.at_work.leave(me)) leave(me, i);
                         },
                     .device = i * width + role.device,
                     .unit = may_change ? i : -1});
    }
  }
  const int centre_device = replicas() * width;
  if (at_coordinator && !has_centre) return all;
  for (Role& role : coupling_->roles(begin_)) {
    role.device = has_centre ? centre_device : role.device * width;
    all.push_back(std::move(role));
  }
  return all;
}

void Job::leave(Context& me, int replica) {
  if (std::exchange(members_[static_cast<std::size_t>(replica)]->left, true)) return;
  coupling_->replica_left(me, replica);
}

UnitEvents Job::units() {
  return {.left = [this](Context& me, int unit) { leave(me, unit); },
          .joins =
              [this](Context& me, int unit) {
                Member& member = *members_[static_cast<std::size_t>(unit)];
                member.source.catch_up();
                coupling_->replica_joins(me, member.store, unit, member.source.position());
              }};
}

const WeightStore& Job::evaluation_weights() {
  if (evaluation_weights_ != nullptr) return *evaluation_weights_;
  evaluation_weights_ = &coupling_->evaluation_weights();
  if (coupling_->evaluation_needs_statistics() && has_buffers(model_) && !parts_.stage.dry_run) {
    refresh_statistics(model_, *evaluation_weights_, *parts_.batches.front(), parts_.stage, statistics_batches);
  }
  return *evaluation_weights_;
}

StalenessCount Job::staleness(int block) const {
  StalenessCount all;
  for (const auto& member : members_) {
    if (!member) continue;
    const StalenessCount one = member->store.staleness(block);
    all.updates += one.updates;
    all.sum += one.sum;
    all.max = std::max(all.max, one.max);
  }
  return all;
}

bool Job::finite() const {
  if (parts_.stage.dry_run) return true;
  if (!members_.front()) return coupling_->evaluation_weights().finite();
  return std::all_of(members_.begin(), members_.end(), [](const auto& member) { return member->store.finite(); });
}

std::string Job::digest() const {
  if (parts_.stage.dry_run) return "";
  std::vector<std::string> digests;
  for (int i = 0; i < replicas(); ++i) digests.push_back(digest_of_replica(i));
  return digest_of(digests);
}

std::string Job::digest_of(const std::vector<std::string>& replicas) {
  if (replicas.size() == 1) return replicas.front();
  Digest digest;
  for (const std::string& one : replicas) digest.add_bytes(one.data(), one.size());
  return digest.hex();
}

void Job::save_replica(torch::serialize::OutputArchive& archive, int replica) const {
  const Member& member = *members_[static_cast<std::size_t>(replica)];
  torch::serialize::OutputArchive store(archive.compilation_unit()), in_flight(archive.compilation_unit()),
      hooks(archive.compilation_unit());
  member.store.save(store);
  member.schedule->save(in_flight);
  coupling_->save_hooks(hooks, replica);
  archive.write("store", store);
  archive.write("schedule", in_flight);
  archive.write("hooks", hooks);
}

void Job::load_replica(torch::serialize::InputArchive& archive, int replica, bool partial) {
  Member& member = *members_[static_cast<std::size_t>(replica)];
  torch::serialize::InputArchive store, in_flight, hooks;
  archive.read("store", store);
  archive.read("schedule", in_flight);
  archive.read("hooks", hooks);
  member.store.load(store, partial);
  member.schedule->load(in_flight);
  coupling_->load_hooks(hooks, replica);
}

void Job::save(torch::serialize::OutputArchive& archive) const {
  for (int i = 0; i < replicas(); ++i) {
    if (!is_here(i)) continue;
    torch::serialize::OutputArchive part(archive.compilation_unit());
    save_replica(part, i);
    archive.write(fmt::format("replica{}", i), part);
  }
  torch::serialize::OutputArchive coupling(archive.compilation_unit());
  coupling_->save(coupling);
  archive.write("coupling", coupling);
}

void Job::load(torch::serialize::InputArchive& archive) {
  for (int i = 0; i < replicas(); ++i) {
    if (!is_here(i)) continue;
    torch::serialize::InputArchive part, first;
    if (archive.try_read(fmt::format("replica{}", i), part)) {
      load_replica(part, i, false);
    } else if (archive.try_read("replica0", first)) {
      load_replica(first, i, false);
    } else {
      from_the_centre_.push_back(i);
    }
  }
  torch::serialize::InputArchive coupling;
  archive.read("coupling", coupling);
  coupling_->load(coupling);
  evaluation_weights_ = nullptr;
}

void Job::renumber(std::int64_t steps, std::int64_t step) {
  const bool own_clock = find_coupling(parts_.coupling.name).clock == StepClock::replica;
  for (const auto& member : members_) {
    if (member && own_clock) member->store.renumber(steps);
  }
  Bystander me;
  for (const int replica : std::exchange(from_the_centre_, {})) {
    coupling_->replica_resumes(me, store(replica), replica, step);
  }
}

std::string Job::save_part(int replica) const {
  torch::serialize::OutputArchive archive;
  save_replica(archive, replica);
  std::string part;
  archive.save_to([&part](const void* data, std::size_t size) {
    part.append(static_cast<const char*>(data), size);
    return size;
  });
  return part;
}

void Job::load_part(int replica, const std::string& part) {
  torch::serialize::InputArchive archive;
  try {
    archive.load_from(part.data(), part.size());
    load_replica(archive, replica, true);
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;
    throw DataError(fmt::format("the state of replica {} does not fit: {}", replica, error.what_without_backtrace()));
  }
  evaluation_weights_ = nullptr;
}

void refresh_statistics(const Model& model, WeightStore& store, const BatchMaker& maker, const StageOptions& options,
                        int batches) {
  torch::NoGradGuard no_grad;
  Bystander me;
  StageOptions plain = options;
  plain.stale_weights = StaleWeights::stashed;
  const Stage stage(model, 0, static_cast<int>(model.blocks.size()), plain);
  // A pass that begins with 0 leaves (1 - d) s of a running mean r <- d r + (1 - d) s: the mean of all s, with nothing of what
  // was there before. Buffers of other kinds go from pass to pass as in training.
  const auto is_mean = [&](int block, std::size_t i) { return store.buffer_decays(block)[i] < 1; };
  std::vector<std::vector<torch::Tensor>> buffers, sums;
  for (int block = 0; block < store.block_count(); ++block) {
    auto& all = buffers.emplace_back();
    auto& sum = sums.emplace_back();
    for (const torch::Tensor& tensor : store.read(me, block).buffers->tensors) {
      all.push_back(is_mean(block, all.size()) ? torch::zeros_like(tensor) : tensor);
      sum.push_back(torch::zeros_like(tensor));
    }
  }
  for (int i = 0; i < batches; ++i) {
    std::vector<Snapshot> weights;
    for (int block = 0; block < store.block_count(); ++block) {
      weights.push_back({store.result(block).parameters,
                         std::make_shared<const TensorSet>(TensorSet{buffers[static_cast<std::size_t>(block)]})});
    }
    std::vector<std::vector<torch::Tensor>> after;
    stage.forward(weights, maker.make(i).input, i, &after);
    for (std::size_t block = 0; block < after.size(); ++block) {
      for (std::size_t k = 0; k < after[block].size(); ++k) {
        if (is_mean(static_cast<int>(block), k)) {
          sums[block][k] += after[block][k] / (1 - store.buffer_decays(static_cast<int>(block))[k]);
        } else {
          buffers[block][k] = after[block][k].clone();
        }
      }
    }
  }
  for (int block = 0; block < store.block_count(); ++block) {
    const auto at = static_cast<std::size_t>(block);
    for (std::size_t k = 0; k < sums[at].size(); ++k) {
      if (is_mean(block, k)) buffers[at][k] = sums[at][k] / static_cast<double>(batches);
    }
    store.merge_buffers(me, block, store.read(me, block).buffers, buffers[at]);
  }
}

}  // namespace rubato
