#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "cluster/home.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/io/files.h"
#include "rubato/model/model.h"
#include "rubato/wire/packing.h"

namespace rubato {
namespace {

using namespace std::chrono_literals;
using Clock = WorkerEntry::Clock;

constexpr auto grace = 2s;              // for workers to say that they are there, after the home has been started again
constexpr auto weights_grace = 1500ms;  // for their weights

/// The mean of what several workers sent, block by block.
std::vector<std::vector<torch::Tensor>> mean_of(const std::vector<std::vector<TensorSetPtr>>& all) {
  torch::NoGradGuard no_grad;
  std::vector<std::vector<torch::Tensor>> mean;
  for (std::size_t block = 0; block < all.front().size(); ++block) {
    auto& tensors = mean.emplace_back();
    for (std::size_t i = 0; i < all.front()[block]->tensors.size(); ++i) {
      torch::Tensor sum = all.front()[block]->tensors[i].clone();
      for (std::size_t w = 1; w < all.size(); ++w) sum.add_(all[w].at(block)->tensors.at(i));
      tensors.push_back(sum.div_(static_cast<double>(all.size())));
    }
  }
  return mean;
}

/// Home of workers that come, go and die as they like.
class FreeHome final : public Home {
 public:
  FreeHome(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note)
      : Home(plan, job, meter, std::move(note)), has_centre_(find_coupling(plan.options.coupling).extra_roles > 0) {}
  ~FreeHome() override {
    conductor_ = {};
    close();
  }

  std::int64_t run(std::int64_t begin, std::int64_t end) override;
  StalenessCount staleness(int block) const override {
    const std::lock_guard lock(mutex_);
    return staleness_of(block);
  }
  std::string digest() const override;

 protected:
  void came(int rank) override {
    membership_changed();
    if (stopping_) order(rank, order::stop, {});  // it was away when the others were told
  }
  void died(int) override { membership_changed(); }
  void reported(int) override { membership_changed(); }
  void sums_broken() override {
    forget_generation();
    order_members(members());
  }

 private:
  void start(std::int64_t begin);
  void rebuild_centre();
  void conduct(const std::stop_token& stop);
  bool begin_worker(int rank);
  Packed kept_weights(int rank) const;
  void membership_changed();
  std::vector<std::int64_t> members() const;
  std::int64_t progress() const;
  std::int64_t least_of_finished() const;
  bool is_over() const;
  void gather(std::int64_t step);
  std::vector<std::vector<TensorSetPtr>> collect(const std::vector<int>& ranks, std::unique_lock<std::mutex>& lock);

  const bool has_centre_;
  bool started_ = false;
  bool stopping_ = false;       ///< guarded by mutex_: all workers were told to stop
  bool anything_done_ = false;  ///< a worker that comes now does not begin with the model's weights
  std::int64_t floor_ = 0;      ///< step that workers begin at, at least
  Clock::time_point last_news_ = Clock::now();
  std::jthread conductor_;
};

std::int64_t FreeHome::run(std::int64_t begin, std::int64_t end) {
  job_.open(begin, end);  // what the answer is has to be found anew
  if (!started_) start(begin);
  std::unique_lock lock(mutex_);
  wait_until(lock, [&] {
    if (stop_wanted_ && !stopping_) {
      stopping_ = true;
      order_all(order::stop, {});
    }
    return is_over() || (!stopping_ && progress() >= end);
  });
  const bool over = is_over();
  std::int64_t reached = std::min(over ? least_of_finished() : progress(), plan_.total_steps);
  const bool stopping = stopping_;
  if (over && !stopping) reached = plan_.total_steps;
  lock.unlock();
  if (!has_centre_) gather(stopping ? std::max(reached, begin) : std::max(reached, end));
  return stopping ? std::max(reached, begin) : std::max(reached, end);
}

void FreeHome::start(std::int64_t begin) {
  started_ = true;
  floor_ = begin;
  anything_done_ = begin > 0 || !plan_.options.init_from.empty();
  open();
  if (plan_.processes->incarnation > 0) rebuild_centre();
  if (has_centre_) start_centre();
  conductor_ = std::jthread([this](const std::stop_token& stop) { conduct(stop); });
}

/// After the home has died: survivors know more than the last checkpoint. An elastic centre estimates their mean.
void FreeHome::rebuild_centre() {
  std::unique_lock lock(mutex_);
  const auto until = Clock::now() + grace;
  while (Clock::now() < until && !all(table_, [](const auto& entry) { return entry.state != WorkerEntry::missing; })) {
    changed_.wait_for(lock, 20ms);
  }
  std::vector<int> running;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (entry.state == WorkerEntry::running && entry.step >= floor_) running.push_back(rank);
  }
  anything_done_ = anything_done_ || !running.empty();
  rebuilt_from_ = fmt::format("checkpoint step {}", floor_);
  if (!has_centre_ || running.empty()) return;
  const auto weights = collect(running, lock);
  if (weights.empty()) return;
  lock.unlock();
  const auto mean = mean_of(weights);
  Bystander me;
  WeightStore& centre = job_.coupling().answer();
  for (int block = 0; block < centre.block_count(); ++block) {
    const auto& tensors = mean.at(static_cast<std::size_t>(block));
    centre.update(me, block, "rebuilt", [&](const TensorSet&, std::vector<torch::Tensor>& next) {
      for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(tensors.at(i));
    });
  }
  lock.lock();
  rebuilt_from_ = fmt::format("weights of {} survivor{}", weights.size(), weights.size() == 1 ? "" : "s");
  note_("the centre was made again from the " + rebuilt_from_);
}

/// What those of `ranks` that answer soon have learned.
std::vector<std::vector<TensorSetPtr>> FreeHome::collect(const std::vector<int>& ranks, std::unique_lock<std::mutex>& lock) {
  for (const int rank : ranks) {
    table_[static_cast<std::size_t>(rank)].weights.reset();
    order(rank, order::weights, {});
  }
  const auto until = Clock::now() + weights_grace;
  const auto all_there = [&] {
    return std::all_of(ranks.begin(), ranks.end(),
                       [&](int rank) { return table_[static_cast<std::size_t>(rank)].weights.has_value(); });
  };
  while (Clock::now() < until && !all_there()) changed_.wait_for(lock, 20ms);
  std::vector<std::vector<TensorSetPtr>> weights;
  Bystander me;
  for (const int rank : ranks) {
    const auto& packed = table_[static_cast<std::size_t>(rank)].weights;
    if (!packed) continue;
    Unpacker unpacker(*packed);
    std::vector<TensorSetPtr> sets = unpack_sets(unpacker);
    if (sets.size() == plan_.model.blocks.size()) weights.push_back(std::move(sets));
  }
  return weights;
}

void FreeHome::conduct(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
      WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
      if (entry.state != WorkerEntry::idle || entry.silent) continue;
      if (stop_wanted_) {
        entry.state = WorkerEntry::finished;
      } else if (begin_worker(rank)) {
        entry.state = WorkerEntry::running;
        membership_changed();
      }
    }
    look_for_the_dead();
    changed_.wait_for(lock, 100ms);
  }
}

/// False: not yet, because those whose weights it shall begin with have not sent them.
bool FreeHome::begin_worker(int rank) {
  WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
  BeginOrder begin{.end = plan_.total_steps, .generation = generation_};
  const bool later = anything_done_ || entry.greeting.incarnation > 0 || progress() > 0;
  entry.step = std::max({entry.step, floor_, later ? progress() : 0});
  begin.begin = std::min(entry.step, plan_.total_steps);
  if (later) begin.start = BeginOrder::join;
  if (later && !has_centre_) {
    for (const WorkerEntry& donor : table_) {
      if (donor.state == WorkerEntry::running && !donor.silent && donor.weights && donor.weights_at > entry.began)
        begin.state = *donor.weights;
    }
    begin.start = BeginOrder::weights;
    if (begin.state.tensors.empty()) {
      bool asked = false;
      for (int other = 0; other < static_cast<int>(table_.size()); ++other) {
        const WorkerEntry& donor = table_[static_cast<std::size_t>(other)];
        if (donor.state != WorkerEntry::running || donor.silent) continue;
        order(other, order::weights, {});
        asked = true;
      }
      if (asked) return false;
      begin.state = kept_weights(rank);
    }
  }
  if (sums_) {
    begin.members = members();
    begin.members.push_back(rank);
    std::sort(begin.members.begin(), begin.members.end());
  }
  anything_done_ = anything_done_ || entry.greeting.incarnation > 0;
  order(rank, order::begin, begin.pack());
  return true;
}

/// What the home keeps of a replica: from the checkpoint, where nobody is there to ask.
Packed FreeHome::kept_weights(int rank) const {
  std::vector<TensorSetPtr> sets;
  for (int block = 0; block < job_.store(rank).block_count(); ++block) sets.push_back(job_.store(rank).result(block).parameters);
  Packed packed;
  pack(packed, sets);
  return packed;
}

/// Those who average together.
std::vector<std::int64_t> FreeHome::members() const {
  std::vector<std::int64_t> members;
  for (std::size_t rank = 0; rank < table_.size(); ++rank) {
    const WorkerEntry& entry = table_[rank];
    if (entry.state == WorkerEntry::running && !entry.silent) members.push_back(static_cast<std::int64_t>(rank));
  }
  return members;
}

void FreeHome::membership_changed() {
  last_news_ = Clock::now();
  order_members(members());
}

/// Of the slowest worker that is at work.
std::int64_t FreeHome::progress() const {
  std::optional<std::int64_t> least;
  for (const WorkerEntry& entry : table_) {
    if (entry.state != WorkerEntry::running || entry.silent) continue;
    least = std::min(least.value_or(entry.step), entry.step);
  }
  return least.value_or(floor_);
}

std::int64_t FreeHome::least_of_finished() const {
  std::optional<std::int64_t> least;
  for (const WorkerEntry& entry : table_) {
    if (entry.state == WorkerEntry::finished) least = std::min(least.value_or(entry.step), entry.step);
  }
  return least.value_or(floor_);
}

bool FreeHome::is_over() const {
  bool any_finished = false;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (entry.state == WorkerEntry::finished) {
      any_finished = true;
      continue;
    }
    if (entry.present() && !entry.silent) return false;
    const double waited = std::chrono::duration<double>(Clock::now() - last_news_).count();
    const bool gone = waited > plan_.options.patience ||
                      (entry.state == WorkerEntry::dead && waited > 1 && will_not_come(rank)) ||
                      (entry.silent && waited > 1 && will_not_come(rank));
    if (!gone) return false;
  }
  if (!any_finished && !stop_wanted_) throw DataError("no worker is left, and none has come back");
  return true;
}

/// Without a centre the answer is the mean over replicas: brings the stores that the home keeps up to date, as of `step`.
void FreeHome::gather(std::int64_t step) {
  std::unique_lock lock(mutex_);
  std::vector<int> ranks;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (entry.state == WorkerEntry::running && !entry.silent) ranks.push_back(rank);
  }
  if (!ranks.empty()) collect(ranks, lock);
  std::vector<std::vector<TensorSetPtr>> known;
  for (const WorkerEntry& entry : table_) {
    if (!entry.weights) continue;
    Unpacker unpacker(*entry.weights);
    known.push_back(unpack_sets(unpacker));
  }
  lock.unlock();
  if (known.empty()) return;
  const auto mean = mean_of(known);
  Bystander me;
  for (int replica = 0; replica < job_.replicas(); ++replica) {
    WeightStore& store = job_.store(replica);
    for (int block = 0; block < store.block_count(); ++block) {
      store.update(
          me, block, "gathered",
          [&](const TensorSet&, std::vector<torch::Tensor>& next) {
            for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(mean.at(static_cast<std::size_t>(block)).at(i));
          },
          step);
    }
  }
}

/// Of the workers' weights; while one has not said what its are, of the answer's.
std::string FreeHome::digest() const {
  std::vector<std::string> digests;
  {
    const std::lock_guard lock(mutex_);
    for (const WorkerEntry& entry : table_) digests.push_back(entry.finish.digest);
  }
  const bool complete = std::none_of(digests.begin(), digests.end(), [](const std::string& one) { return one.empty(); });
  return complete ? Job::digest_of(digests) : job_.answer().digest();
}

}  // namespace

std::unique_ptr<Execution> make_free_home(const Plan& plan, Job& job, StepMeter& meter,
                                          std::function<void(const std::string&)> note) {
  return std::make_unique<FreeHome>(plan, job, meter, std::move(note));
}

}  // namespace rubato
