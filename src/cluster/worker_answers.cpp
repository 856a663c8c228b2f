#include <bit>
#include <cstdint>

#include <fmt/format.h>

#include "cluster/worker_implementation.h"
#include "rubato/wire/packing.h"
#include "rubato/wire/tensor_sum.h"

// What a worker does on the transport's thread.

namespace rubato {

void Worker::Implementation::listens(const std::string& channel) {
  if (!remember_own(channel)) return;
  transport_->send(coordinator_rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = {}});
}

void Worker::Implementation::arrived(int peer, Frame frame) {
  if (carry(peer, frame)) return;
  if (peer != coordinator_rank) return;
  if (frame.kind == FrameKind::listens) coordinator_listens(frame);
  if (frame.kind == FrameKind::order) order_came(std::move(frame));
}

void Worker::Implementation::coordinator_listens(const Frame& frame) {
  Unpacker unpacker(frame.content);
  const int where = static_cast<int>(unpacker.number());
  {
    const std::lock_guard lock(mutex_);
    places_[frame.about] = where;
  }
  if (where != choice_.rank) runtime_->located(frame.about, where);
  if (where == coordinator_rank) runtime_->set_away(false);
}

void Worker::Implementation::order_came(Frame frame) {
  Unpacker unpacker(frame.content);
  const std::string& what = frame.about;
  if (what == order::meet) {
    const int rank = static_cast<int>(unpacker.number());
    return transport_->know(rank, unpacker.text());
  }
  if (what == order::members) {
    const std::int64_t group_version = unpacker.number();
    return collectives_.set_members(group_version, {frame.content.numbers.begin() + 1, frame.content.numbers.end()});
  }
  if (what == order::found) {
    const std::string& key = unpacker.text();
    return rendezvous_->came(key, unpack_bytes(unpacker));
  }
  if (what == order::asked) return answer_sum(unpacker);
  if (what == order::sum) return sum_came(unpacker);
  if (what == order::weights) return send_weights();
  if (what == order::stop || what == order::end_at || what == order::hold) {
    if (!wait_for_opening(frame)) source_order(what, unpacker);
    return;
  }
  if (what == order::abort || what == order::leave) {
    interrupt_segment();
  }
  const std::lock_guard lock(mutex_);
  if (what == order::abort) orders_.clear();
  opening_ = what == order::begin;
  at_opening_.clear();
  orders_.push_back({what, frame.serial, std::move(frame.content)});
  changed_.notify_all();
}

/// Opening a source forgets what it was told before. A segment begins on another thread, so what the coordinator orders right
/// after it may come too early.
bool Worker::Implementation::wait_for_opening(const Frame& frame) {
  const std::lock_guard lock(mutex_);
  if (opening_) at_opening_.push_back({frame.about, frame.serial, frame.content});
  return opening_;
}

/// The source is open: what was ordered meanwhile, in its order.
void Worker::Implementation::opened() {
  for (;;) {
    std::vector<Order> waiting;
    {
      const std::lock_guard lock(mutex_);
      waiting.swap(at_opening_);
      if (waiting.empty()) {
        opening_ = false;
        return;
      }
    }
    for (const Order& order : waiting) {
      Unpacker unpacker(order.content);
      source_order(order.what, unpacker);
    }
  }
}

void Worker::Implementation::source_order(const std::string& what, Unpacker& unpacker) {
  if (what == order::stop) {
    job_.stop();
  } else if (what == order::end_at) {
    job_.source(replica_).end_at(unpacker.number());
  } else {
    Packed held;
    held.numbers = {job_.source(replica_).hold()};
    report(report::held, std::move(held));
  }
}

void Worker::Implementation::interrupt_segment() {
  collectives_.interrupt();
  runtime_->interrupt();
  job_.source(replica_).end_at(0);
}

/// Asked by a member of a sum whether it was finished here, before one of us died.
void Worker::Implementation::answer_sum(Unpacker& unpacker) {
  const std::int64_t asker = unpacker.number();
  const SumQuestion question{unpacker.text(), unpacker.number(), unpacker.number()};
  const auto sum = std::dynamic_pointer_cast<const TensorSum>(collectives_.finished(question));
  Packed answer;
  answer.numbers = {asker, question.number, question.group_version, sum ? 1 : 0};
  answer.texts = {question.group};
  if (sum) {
    answer.numbers.push_back(sum->parts());
    answer.numbers.push_back(std::bit_cast<std::int32_t>(sum->weight));
    pack(answer, sum->tensors);
  }
  report(report::sum, std::move(answer));
}

void Worker::Implementation::sum_came(Unpacker& unpacker) {
  const std::int64_t member = unpacker.number();
  const SumQuestion question{unpacker.text(), unpacker.number(), unpacker.number()};
  std::shared_ptr<TensorSum> sum;
  if (unpacker.count(1) == 1) {
    sum = std::make_shared<TensorSum>();
    sum->set_parts(static_cast<int>(unpacker.number()));
    sum->weight = std::bit_cast<float>(static_cast<std::int32_t>(unpacker.number()));
    sum->tensors = unpack_tensors(unpacker);
  }
  collectives_.answer(member, question, std::move(sum));
}

Packed Worker::Implementation::weights() const {
  Bystander me;
  std::vector<TensorSetPtr> sets;
  for (int block = 0; block < job_.store(replica_).block_count(); ++block) {
    sets.push_back(job_.store(replica_).iterate(me, block));
  }
  Packed packed;
  pack(packed, sets);
  return packed;
}

void Worker::Implementation::send_weights() {
  report(report::weights, weights(), job_.source(replica_).position());
}

/// A coordinator that has been started again learns from the hello what this worker is doing; it will say where its channels are.
void Worker::Implementation::welcomed(const Greeting& coordinator) {
  bool is_new = false, had_one = false;
  Packed finished;
  {
    const std::lock_guard lock(mutex_);
    had_one = coordinator_.has_value();
    is_new = !coordinator_ || coordinator_->incarnation != coordinator.incarnation || coordinator_->pid != coordinator.pid;
    if (is_new && coordinator_) note_(fmt::format("the coordinator has been started again (process {})", coordinator.pid));
    coordinator_ = coordinator;
    coordinator_silent_ = false;
    if (is_new) places_.clear();
    if (phase_ == WorkerPhase::finished) finished = last_report_;
    changed_.notify_all();
  }
  if (!is_new) return;
  if (had_one && free_) {  // it may have been away for so short a time that nobody noticed; what it was asked is lost
    runtime_->lost(coordinator_rank);
    runtime_->set_away(true);
  }
  for (const std::string& channel : own_channels()) {
    transport_->send(coordinator_rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = {}});
  }
  if (!finished.numbers.empty()) report(report::finished, std::move(finished), term());
}

void Worker::Implementation::turned_away(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  turned_away_ = reason;
  changed_.notify_all();
}

void Worker::Implementation::silent(int peer, bool is_silent) {
  if (peer != coordinator_rank) return;
  std::map<std::string, int> places;
  {
    const std::lock_guard lock(mutex_);
    coordinator_silent_ = is_silent;
    silent_since_ = std::chrono::steady_clock::now();
    places = places_;
  }
  if (!free_) return;
  if (is_silent) {
    runtime_->lost(coordinator_rank);
    runtime_->set_away(true);
    return;
  }
  bool any = false;
  for (const auto& [channel, where] : places) {
    if (where != coordinator_rank) continue;
    runtime_->located(channel, where);
    any = true;
  }
  if (any) runtime_->set_away(false);
}

Packed Worker::Implementation::details() {
  const std::lock_guard lock(mutex_);
  return WorkerDetails{.phase = phase_, .segment = segment_, .step = step_}.pack();
}

Packed Worker::Implementation::beat() {
  if (stop_wanted_) report(report::stop, {});
  const MeterReading reading = tap_.reading();
  bool running = false, alone = false;
  {
    const std::lock_guard lock(mutex_);
    running = phase_ == WorkerPhase::running;
    alone = coordinator_silent_ &&
            std::chrono::steady_clock::now() - silent_since_ > std::chrono::duration<double>(plan_.options.patience);
  }
  if (running && alone && !free_) interrupt_segment();  // nobody will ever say that a neighbour is gone
  if (running) step_ = job_.source(replica_).position();
  WorkerBeat beat{.step = step_,
                  .samples = reading.samples,
                  .loss = reading.loss,
                  .waited = runtime_->waited(),
                  .traffic = transport_->traffic()};
  for (int block = 0; block < job_.store(replica_).block_count(); ++block) {
    beat.staleness.push_back(job_.store(replica_).staleness(block));
  }
  Packed packed = beat.pack();
  tap_.drain(packed);
  return packed;
}

}  // namespace rubato
