#include "runtimes/mailbox.h"

#include "rubato/context/context.h"

namespace rubato {
namespace {

constexpr std::chrono::milliseconds look_again{20};

}  // namespace

void Mailbox::put(std::unique_ptr<Message> message, std::size_t capacity, Wait wait, InOrder in_order) {
  std::unique_lock lock(mutex_);
  capacity_ = capacity;
  block_until(lock, room_, "room in", &Mailbox::has_room, wait);
  if (stopped_) throw Stopped{};
  in_order([&] {
    if (lost_) return;
    if (receiver_) return send_on(std::move(message));
    queue_.push_back(std::move(message));
  });
  lock.unlock();
  filled_.notify_one();
}

std::unique_ptr<Message> Mailbox::take(const ChannelSpec& channel, FunctionRef<void(const Message&)> found, Wait wait,
                                       InOrder in_order) {
  std::unique_lock lock(mutex_);
  capacity_ = channel.capacity;
  const bool counted = counts_room();
  if (channel.may_be_lost && away_ != nullptr) {
    wait_while_hope(lock);
  } else {
    block_until(lock, filled_, "a message in", &Mailbox::has_message, wait);
  }
  if (stopped_) throw Stopped{};
  found(*queue_.front());
  std::unique_ptr<Message> message;
  in_order([&] {
    message = std::move(queue_.front());
    queue_.pop_front();
  });
  lock.unlock();
  room_.notify_one();
  if (neighbours_ != nullptr && counted) {
    if (const auto* packed = dynamic_cast<const PackedMessage*>(message.get())) neighbours_->taken(packed->peer, channel_);
  }
  return message;
}

/// A loss is not told to each mailbox: a look now and then is enough, a message wakes at once.
void Mailbox::wait_while_hope(std::unique_lock<std::mutex>& lock) {
  const auto begin = AwayWatch::Clock::now();
  while (!has_message()) {
    if (away_->in_vain(begin)) throw PeerLost{};
    filled_.wait_for(lock, look_again);
  }
  away_->answered(begin);
}

void Mailbox::send_on(std::unique_ptr<Message> message) {
  if (counts_room()) ++on_the_way_;
  neighbours_->send(*receiver_, channel_, message->batch(), message->pack());
}

void Mailbox::set_stopped(bool stopped) {
  const std::lock_guard lock(mutex_);
  stopped_ = stopped;
  room_.notify_all();
  filled_.notify_all();
}

void Mailbox::deliver(std::unique_ptr<PackedMessage> message) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(message));
  }
  filled_.notify_one();
}

void Mailbox::located(int peer) {
  const std::lock_guard lock(mutex_);
  if (received_here_) return;
  receiver_ = peer;
  lost_ = false;
  for (auto& message : queue_) send_on(std::move(message));
  queue_.clear();
  room_.notify_all();
}

void Mailbox::lost(int peer) {
  const std::lock_guard lock(mutex_);
  if (receiver_ != peer) return;
  lost_ = true;
  on_the_way_ = 0;
  room_.notify_all();
}

void Mailbox::expect(int peer) {
  const std::lock_guard lock(mutex_);
  if (receiver_ != peer) return;
  receiver_.reset();
  lost_ = false;
  on_the_way_ = 0;
  room_.notify_all();
}

void Mailbox::taken() {
  const std::lock_guard lock(mutex_);
  if (on_the_way_ > 0) --on_the_way_;
  room_.notify_one();
}

void Mailbox::clear() {
  const std::lock_guard lock(mutex_);
  queue_.clear();
  receiver_.reset();
  stopped_ = lost_ = received_here_ = false;
  on_the_way_ = 0;
}

bool Mailbox::first_receive() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(received_here_, true);
}

void Mailbox::block_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, const char* what,
                          bool (Mailbox::*condition)() const, Wait wait) {
  if ((this->*condition)()) return;
  const auto waiting = wait(what, [this, condition] {
    const std::lock_guard look(mutex_);
    return (this->*condition)();
  });
  changed.wait(lock, [&] { return (this->*condition)(); });
}

}  // namespace rubato
