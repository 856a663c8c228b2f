// Thread rules
//   - Any number of roles call `next`. The index is taken under the mutex of the sources that stop together, inside the role's
//     ordering point; what follows, waiting or preparing, holds neither.
//   - One thread of the Prefetcher prepares batches, strictly in order of index, outside every lock. It makes no parallel torch
//   call
//     and leaves at::set_num_threads alone, which would also change the number that a role asked for, as long as that role has
//     not run its first parallel operation.
//   - `stop` is one atomic store. `open` is called while nobody is inside `next`.
// Invariants of the Prefetcher, under its `mutex_`
//   - `ready_` holds batches of the current segment only, each until the caller with its index fetches it.
//   - The thread goes ahead while next_ - asked_ < depth_. `asked_` lies above every index a caller waits for, so every wait
//   ends,
//     even if a caller that took an index never fetches the batch.
//   - `segment_` changes with every `open`; a batch prepared for an earlier segment is dropped.
#include "rubato/data/batch_source.h"

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <thread>

#include "rubato/core/error.h"

namespace rubato {

class BatchSource::Prefetcher {
 public:
  Prefetcher(const BatchSource& source, std::int64_t depth)
      : source_(source), depth_(depth), thread_([this](std::stop_token stop) { run(stop); }) {}

  void open(std::int64_t begin, std::int64_t end) {
    const std::scoped_lock lock(mutex_);
    ready_.clear();
    failure_ = nullptr;
    next_ = asked_ = begin;
    end_ = end;
    ++segment_;
    work_.notify_one();
  }

  /// Waits for batch `index` of the current segment. To be asked for once.
  Batch take(std::int64_t index) {
    std::unique_lock lock(mutex_);
    asked_ = std::max(asked_, index + 1);
    work_.notify_one();
    done_.wait(lock, [&] { return ready_.contains(index) || (failure_ && index >= next_); });
    auto found = ready_.extract(index);
    if (!found) std::rethrow_exception(failure_);
    return std::move(found.mapped());
  }

 private:
  void run(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    const auto has_work = [&] { return !failure_ && next_ < end_ && next_ - asked_ < depth_; };
    while (work_.wait(lock, stop, has_work) && !stop.stop_requested()) prepare(lock);
  }

  void prepare(std::unique_lock<std::mutex>& lock) {
    const std::int64_t index = next_, segment = segment_;
    Batch batch;
    std::exception_ptr failure;
    lock.unlock();
    try {
      batch = source_.make(index);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (segment != segment_) return;
    failure_ = failure;
    if (!failure) ready_.emplace(next_++, std::move(batch));
    done_.notify_all();
  }

  const BatchSource& source_;
  const std::int64_t depth_;
  std::mutex mutex_;
  std::condition_variable_any work_;  ///< for the thread
  std::condition_variable done_;      ///< for callers
  std::map<std::int64_t, Batch> ready_;
  std::exception_ptr failure_;  ///< why batch `next_` could not be prepared
  std::int64_t next_ = 0, end_ = 0, asked_ = 0, segment_ = 0;
  std::jthread thread_;  ///< last: it uses all of the above
};

BatchSource::BatchSource(std::shared_ptr<const BatchMaker> maker, std::int64_t prefetch, Shard shard,
                         std::shared_ptr<StopTogether> together, std::string name)
    : maker_(std::move(maker)),
      shard_(shard),
      name_(std::move(name)),
      together_(together ? std::move(together) : std::make_shared<StopTogether>()) {
  if (prefetch < 0) {
    throw UsageError("prefetch " + std::to_string(prefetch) + " is not allowed: give 0 or more batches");
  }
  together_->members_.push_back(this);
  if (prefetch > 0) prefetcher_ = std::make_unique<Prefetcher>(*this, prefetch);
}

BatchSource::~BatchSource() {
  const std::scoped_lock lock(together_->mutex_);
  std::erase(together_->members_, this);
}

void BatchSource::open(std::int64_t begin, std::int64_t end) {
  if (begin < 0 || end < begin) {
    throw UsageError("batches " + std::to_string(begin) + " up to " + std::to_string(end) +
                     " are no segment: it must begin at 0 or later and end no earlier than it begins");
  }
  const std::scoped_lock lock(together_->mutex_);
  position_ = begin;
  end_ = end;
  held_ = false;
  together_->furthest_ = -1;
  together_->stopped_ = false;
  if (prefetcher_) prefetcher_->open(begin, end);
}

std::int64_t BatchSource::take_index() {
  std::unique_lock lock(together_->mutex_);
  released_.wait(lock, [this] { return !held_; });
  std::int64_t& furthest = together_->furthest_;
  if (together_->stopped_ && furthest < 0) {
    for (const BatchSource* member : together_->members_) furthest = std::max(furthest, member->position_);
  }
  const std::int64_t end = furthest < 0 ? end_ : std::min(end_, furthest);
  return position_ < end ? position_++ : -1;
}

Batch BatchSource::make(std::int64_t index) const {
  Batch batch = maker_->make(index * shard_.count + shard_.index);
  batch.index = index;
  return batch;
}

std::optional<Batch> BatchSource::next(Actor& actor) {
  Event event{.kind = EventKind::take_batch, .of = name_};
  actor.ordered(event, [&] { event.batch = take_index(); });
  if (event.batch < 0) return std::nullopt;
  return prefetcher_ ? prefetcher_->take(event.batch) : make(event.batch);
}

std::int64_t BatchSource::hold() {
  const std::scoped_lock lock(together_->mutex_);
  held_ = true;
  return position_;
}

void BatchSource::end_at(std::int64_t end) {
  const std::scoped_lock lock(together_->mutex_);
  held_ = false;
  end_ = std::min(end_, end);
  released_.notify_all();
}

std::int64_t BatchSource::position() const {
  const std::scoped_lock lock(together_->mutex_);
  return position_;
}

void BatchSource::catch_up() {
  const std::scoped_lock lock(together_->mutex_);
  for (const BatchSource* member : together_->members_) position_ = std::max(position_, member->position_);
}

}  // namespace rubato
