#include "cluster/coordinator.h"
#include "rubato/core/error.h"
#include "rubato/wire/packing.h"

// What workers say to the coordinator, on the transport's thread.

namespace rubato {
namespace {

std::exception_ptr failure_of(const Packed& content) {
  Unpacker unpacker(content);
  const auto code = static_cast<ExitCode>(unpacker.number());
  const std::string& sentence = unpacker.text();
  if (code == ExitCode::diverged) return std::make_exception_ptr(DivergedError(sentence));
  return std::make_exception_ptr(Error(code, sentence));
}

}  // namespace

void Coordinator::arrived(int peer, Frame frame) {
  if (peer < 0) return;
  if (frame.kind == FrameKind::beat) return beat_came(peer, frame.content);
  if (frame.kind == FrameKind::listens) return worker_listens(peer, frame.about);
  if (frame.kind != FrameKind::report) {
    carry(peer, frame);
  } else if (frame.about == report::ask || frame.about == report::sum) {
    relay(peer, frame);
  } else if (frame.about == report::put || frame.about == report::look) {
    rendezvous(peer, frame);
  } else {
    report_came(peer, frame);
  }
}

/// What the meter says of them: a loss may have diverged.
std::exception_ptr Coordinator::count(const std::vector<StepReport>& steps) {
  try {
    for (StepReport step : steps) {
      step.time = now();
      meter_.step(step);
    }
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

void Coordinator::beat_came(int peer, const Packed& content) {
  Unpacker unpacker(content);
  WorkerBeat beat = WorkerBeat::unpack(unpacker);
  const std::vector<StepReport> steps = std::move(beat.steps);
  beat.steps.clear();
  const std::exception_ptr failure = count(steps);
  const std::lock_guard lock(mutex_);
  WorkerEntry& entry = table_.at(static_cast<std::size_t>(peer));
  if (!failure_) failure_ = failure;
  entry.heard = WorkerEntry::Clock::now();
  entry.step = std::max(entry.step, beat.step);
  if (const double passed = seconds_since(entry.rate_at); passed > 2) {
    entry.rate = static_cast<double>(beat.samples - entry.samples_at) / passed;
    entry.samples_at = beat.samples;
    entry.rate_at = entry.heard;
  }
  entry.beat = std::move(beat);
  changed_.notify_all();
}

void Coordinator::worker_listens(int peer, const std::string& channel) {
  runtime_->located(channel, peer);
  const std::lock_guard lock(mutex_);
  places_[channel] = peer;
  if (plan_.place.parts == 1) return;
  Packed where;
  where.numbers = {peer};
  for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
    if (rank != peer) transport_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = where});
  }
}

/// What members of sums leave here for each other.
void Coordinator::rendezvous(int peer, Frame& frame) {
  Unpacker unpacker(frame.content);
  const std::string& key = unpacker.text();
  const std::lock_guard lock(mutex_);
  std::set<int> asking;
  std::optional<std::string> value;
  if (frame.about == report::put) {
    value = unpack_bytes(unpacker);
    asking = board_.put(key, *value);
  } else if ((value = board_.ask(peer, key))) {
    asking = {peer};
  }
  for (const int rank : asking) {
    Packed found;
    found.texts = {key};
    pack_bytes(found, *value);
    order(rank, order::found, std::move(found));
  }
}

/// Questions and answers between workers about a sum that a death has left unfinished.
void Coordinator::relay(int peer, Frame& frame) {
  if (frame.about == report::ask) {
    frame.content.numbers.insert(frame.content.numbers.begin(), peer);
    const std::lock_guard lock(mutex_);
    for (int rank = 0; rank < static_cast<int>(table_.size()); ++rank) {
      if (rank != peer && table_[static_cast<std::size_t>(rank)].present()) order(rank, order::asked, frame.content);
    }
    return;
  }
  Unpacker unpacker(frame.content);
  const int asker = static_cast<int>(unpacker.number());
  frame.content.numbers.front() = peer;
  order(asker, order::sum, std::move(frame.content));
}

void Coordinator::report_came(int peer, Frame& frame) {
  const std::lock_guard lock(mutex_);
  WorkerEntry& entry = table_.at(static_cast<std::size_t>(peer));
  const bool outdated = frame.serial < term();
  if (outdated && (frame.about == report::finished || frame.about == report::aborted)) return;
  if (frame.about == report::finished) {
    entry.finish = FinishedReport::unpack(frame.content);
    entry.step = entry.finish.position;
    entry.state = WorkerEntry::finished;
    Unpacker unpacker(entry.finish.beat);
    entry.beat = WorkerBeat::unpack(unpacker);
    const std::exception_ptr failure = count(entry.beat.steps);
    if (!failure_) failure_ = failure;
    reported(peer);
  } else if (frame.about == report::aborted) {
    entry.term = frame.serial;
    entry.state = WorkerEntry::idle;
  } else if (frame.about == report::failed) {
    entry.state = WorkerEntry::idle;
    if (!failure_) failure_ = failure_of(frame.content);
  } else if (frame.about == report::weights) {
    entry.weights = std::move(frame.content);
    entry.weights_at = WorkerEntry::Clock::now();
    entry.step = std::max(entry.step, frame.serial);
  } else if (frame.about == report::held) {
    Unpacker unpacker(frame.content);
    entry.step = unpacker.number();
    entry.held = true;
  } else if (frame.about == report::left) {
    entry.left = true;
  } else if (frame.about == report::stop) {
    stop_wanted_ = true;
  } else if (frame.about == report::broken) {
    Unpacker unpacker(frame.content);
    if (unpacker.number() == group_version_) sums_broken();
  }
  changed_.notify_all();
}

}  // namespace rubato
