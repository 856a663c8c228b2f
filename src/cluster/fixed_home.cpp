#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "cluster/home.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/wire/packing.h"

namespace rubato {
namespace {

using Clock = WorkerEntry::Clock;

/// Home of workers that wait for each other.
class FixedHome final : public Home {
 public:
  FixedHome(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note);
  ~FixedHome() override { close(); }
  std::int64_t run(std::int64_t begin, std::int64_t end) override;
  StalenessCount staleness(int block) const override { return job_.staleness(block); }
  std::string digest() const override { return job_.digest(); }

 protected:
  void came(int rank) override;
  void died(int rank) override;
  void reported(int) override {}
  void sums_broken() override;

 private:
  bool try_run(std::int64_t begin, std::int64_t end);
  void wait_for_all(std::unique_lock<std::mutex>& lock);
  void begin_segment(std::int64_t begin, std::int64_t end);
  void say_who_is_absent();
  void abort(std::unique_lock<std::mutex>& lock);
  void stop_together(std::unique_lock<std::mutex>& lock);
  void keep_states();
  bool takes_part(const WorkerEntry& entry) const { return entry.segment == segment_; }
  std::vector<std::int64_t> taking_part() const;
  int replica_of(int rank) const { return rank / plan_.place.parts; }

  std::string policy_;
  bool continues_;
  std::int64_t segment_ = 0;
  bool running_ = false;      ///< guarded by mutex_
  bool lost_one_ = false;     ///< guarded by mutex_: the segment cannot be finished
  bool place_empty_ = false;  ///< guarded by mutex_: a stage has died between segments
  bool stop_sent_ = false;
  std::int64_t position_ = 0;
};

FixedHome::FixedHome(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note)
    : Home(plan, job, meter, std::move(note)), policy_(plan.options.when_worker_dies) {
  if (policy_ == "auto") policy_ = goes_on_without_the_dead(plan.options, plan.place.parts) ? "continue" : "wait";
  continues_ = policy_ == "continue";
  // What an earlier home of this job has ordered is of an earlier era.
  set_era(std::int64_t{plan.processes->incarnation} << 32);
}

std::int64_t FixedHome::run(std::int64_t begin, std::int64_t end) {
  open();
  while (!try_run(begin, end)) {
  }
  keep_states();
  return position_;
}

/// False: a worker was lost, and all have gone back to where they began.
bool FixedHome::try_run(std::int64_t begin, std::int64_t end) {
  std::unique_lock lock(mutex_);
  wait_for_all(lock);
  if (stop_wanted_) {
    position_ = begin;
    return true;
  }
  if (std::exchange(place_empty_, false)) {
    abort(lock);
    return false;
  }
  ++segment_;
  lost_one_ = stop_sent_ = false;
  running_ = true;
  lock.unlock();
  job_.open(begin, end);
  start_centre();
  lock.lock();
  begin_segment(begin, end);
  wait_until(lock, [&] {
    look_for_the_dead();
    if (stop_wanted_ && !stop_sent_) stop_together(lock);
    return lost_one_ ||
           all(table_, [&](const WorkerEntry& entry) { return !takes_part(entry) || entry.state == WorkerEntry::finished; });
  });
  running_ = false;
  if (lost_one_) {
    abort(lock);
    return false;
  }
  position_ = begin;
  for (const WorkerEntry& entry : table_) {
    if (takes_part(entry)) position_ = std::max(position_, entry.finish.position);
  }
  lock.unlock();
  join_centre();
  return true;
}

void FixedHome::wait_for_all(std::unique_lock<std::mutex>& lock) {
  const auto begin = Clock::now();
  const auto is_there = [&](const WorkerEntry& entry) {
    // A worker that still runs was ordered so by an earlier home.
    return entry.present() && !entry.silent && entry.state != WorkerEntry::running;
  };
  bool aborted = false;
  wait_until(lock, [&] {
    look_for_the_dead();
    if (stop_wanted_) return true;
    for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
      WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
      if (entry.state == WorkerEntry::running && entry.era != era()) {
        entry.era = era();
        order(rank, order::abort, {}, era());
        aborted = true;
      }
    }
    if (all(table_, is_there)) return true;
    const double waited = std::chrono::duration<double>(Clock::now() - begin).count();
    const auto there = std::count_if(table_.begin(), table_.end(), is_there);
    if (continues_ && segment_ > 0 && there > 0 && waited > 1) return true;
    if (waited > plan_.options.patience) {
      throw DataError(
          fmt::format("{} of {} workers are there after {:g} s (--patience): start the others, or fewer with --resume", there,
                      table_.size(), plan_.options.patience));
    }
    return false;
  });
}

void FixedHome::begin_segment(std::int64_t begin, std::int64_t end) {
  std::vector<int> ranks;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (entry.present() && !entry.silent) ranks.push_back(rank);
  }
  BeginOrder common{
      .segment = segment_,
      .begin = begin,
      .end = end,
  };
  if (sums_) {
    meet({ranks.begin(), ranks.end()});
    common.generation = generation_;
    for (const int rank : ranks) common.members.push_back(replica_of(rank));
    std::sort(common.members.begin(), common.members.end());
    common.members.erase(std::unique(common.members.begin(), common.members.end()), common.members.end());
  }
  say_who_is_absent();
  for (const int rank : ranks) {
    for (const int other : ranks) {
      if (other == rank || plan_.place.parts == 1) continue;
      Packed where;
      where.numbers = {other};
      where.texts = {table_[static_cast<std::size_t>(other)].greeting.endpoint};
      order(rank, order::meet, where);
    }
  }
  for (const int rank : ranks) {
    WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    BeginOrder mine = common;
    const bool pristine = begin == 0 && plan_.options.init_from.empty() && !entry.started;
    if (!entry.synced && !pristine) {
      mine.start = BeginOrder::part;
      pack_bytes(mine.state, job_.save_part(replica_of(rank)));
    }
    entry.synced = entry.started = true;
    entry.state = WorkerEntry::running;
    entry.segment = segment_;
    entry.era = era();
    entry.held = false;
    order(rank, order::begin, mine.pack(), era());
  }
}

/// The centre expects every replica to leave the segment: those that do not take part have.
void FixedHome::say_who_is_absent() {
  const std::string requests = job_.coupling().requests();
  if (requests.empty() || !continues_) return;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    const WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (entry.present() && !entry.silent) continue;
    runtime_->deliver(rank, requests, -1, Coupling::farewell(replica_of(rank)));
  }
}

/// A worker that was taken for dead and speaks again gives up what it was at, and takes part in the next segment.
void FixedHome::came(int rank) {
  WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
  if (entry.state != WorkerEntry::dead) return;
  entry.state = WorkerEntry::running;
  entry.era = era();
  order(rank, order::abort, {}, era());
}

std::vector<std::int64_t> FixedHome::taking_part() const {
  std::vector<std::int64_t> ranks;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    if (takes_part(table_[static_cast<std::size_t>(rank)])) ranks.push_back(rank);
  }
  return ranks;
}

void FixedHome::sums_broken() {
  forget_generation();
  if (!running_) return;
  if (continues_) return order_members(taking_part());
  lost_one_ = true;
}

/// With the lock held. The others finish without it, or the segment is lost.
void FixedHome::died(int rank) {
  WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
  if (!running_ || !takes_part(entry) || entry.state == WorkerEntry::finished) {
    // Stages wait for room that nobody will ever make: they begin anew, from what is kept.
    place_empty_ = place_empty_ || (plan_.place.parts > 1 && segment_ > 0);
    return;
  }
  if (policy_ == "stop") {
    failure_ = std::make_exception_ptr(DataError(
        fmt::format("worker {} has died; --when-worker-dies stop: continue with --resume {}", rank, plan_.options.run_dir)));
    return;
  }
  if (entry.present() && !entry.silent) return;
  entry.segment = -1;
  entry.synced = false;
  const std::vector<std::int64_t> left = taking_part();
  if (!continues_ || left.empty()) {
    lost_one_ = true;
    return;
  }
  if (entry.silent) entry.state = WorkerEntry::dead;
  if (sums_) {
    order_members(left);
  } else {
    runtime_->deliver(rank, job_.coupling().requests(), -1, Coupling::farewell(replica_of(rank)));
  }
}

void FixedHome::abort(std::unique_lock<std::mutex>& lock) {
  note_("a worker is gone: all go back to the last checkpoint and wait for it");
  set_era(era() + 1);
  const std::int64_t new_era = era();
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    entry.synced = false;
    if (!entry.present()) continue;
    entry.state = WorkerEntry::running;
    entry.era = new_era;
    order(rank, order::abort, {}, new_era);
  }
  lock.unlock();
  runtime_->interrupt();
  join_centre();
  begin_era(new_era);
  lock.lock();
}

/// Every source waits until all have said where they are, and goes on up to the furthest.
void FixedHome::stop_together(std::unique_lock<std::mutex>& lock) {
  stop_sent_ = true;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    if (takes_part(table_[static_cast<std::size_t>(rank)])) order(rank, order::hold, {});
  }
  const auto until = Clock::now() + std::chrono::duration<double>(plan_.options.patience);
  const auto done = [&](const WorkerEntry& entry) {
    return !takes_part(entry) || entry.held || entry.state == WorkerEntry::finished;
  };
  while (!all(table_, done) && !lost_one_ && Clock::now() < until) changed_.wait_for(lock, std::chrono::milliseconds(20));
  std::int64_t furthest = 0;
  for (const WorkerEntry& entry : table_) furthest = std::max(furthest, entry.step);
  Packed content;
  content.numbers = {furthest};
  order_all(order::end_at, content);
}

/// What workers have sent at the end of the segment is what the checkpoint will hold.
void FixedHome::keep_states() {
  std::unique_lock lock(mutex_);
  std::optional<int> one;
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (!takes_part(entry) || entry.finish.state.tensors.empty()) continue;
    Unpacker unpacker(entry.finish.state);
    job_.load_part(replica_of(rank), unpack_bytes(unpacker));
    one = one.value_or(rank);
  }
  for (int rank = 0; rank < static_cast<int>(table_.size()) && one; ++rank) {
    WorkerEntry& entry = table_[static_cast<std::size_t>(rank)];
    if (takes_part(entry) || plan_.place.parts > 1) continue;
    Unpacker unpacker(table_[static_cast<std::size_t>(*one)].finish.state);  // whoever comes back begins as another is
    job_.load_part(replica_of(rank), unpack_bytes(unpacker));
    entry.synced = false;
  }
  for (WorkerEntry& entry : table_) entry.finish.state = {};
}

}  // namespace

std::unique_ptr<Execution> make_fixed_home(const Plan& plan, Job& job, StepMeter& meter,
                                           std::function<void(const std::string&)> note) {
  return std::make_unique<FixedHome>(plan, job, meter, std::move(note));
}

}  // namespace rubato
