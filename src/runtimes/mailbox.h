#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "rubato/context/message.h"
#include "rubato/core/function_ref.h"
#include "rubato/runtimes/processes.h"
#include "runtimes/absence.h"
#include "runtimes/waiting.h"

namespace rubato {

/// One end of a channel, or both. Messages wait here for a receiver in this process; when the receiver is in another one, they go
/// there, and count against the capacity until they are taken out. Thread-safe.
class Mailbox {
 public:
  /// `neighbours`, `away`: null on threads of a single process.
  Mailbox(std::string channel, Neighbours* neighbours, AwayWatch* away)
      : channel_(std::move(channel)), neighbours_(neighbours), away_(away) {}

  /// Runs an action at its place in the order of events at this end of the channel.
  using InOrder = FunctionRef<void(FunctionRef<void()>)>;
  /// Says that the calling role waits for `what`, until the returned scope ends; null: nobody wants to know.
  using Wait = FunctionRef<std::unique_ptr<Waiting::Scope>(const char* what, std::function<bool()> may_go_on)>;

  void put(std::unique_ptr<Message> message, std::size_t capacity, Wait wait, InOrder in_order);
  /// Throws PeerLost instead of waiting in vain where the channel may be lost.
  std::unique_ptr<Message> take(const ChannelSpec& channel, FunctionRef<void(const Message&)> found, Wait wait, InOrder in_order);
  void set_stopped(bool stopped);

  // Other processes.
  void deliver(std::unique_ptr<PackedMessage> message);
  void located(int peer);
  void lost(int peer);
  void expect(int peer);
  void taken();
  void clear();
  /// Whether nobody in this process has received from it before.
  bool first_receive();

 private:
  bool has_room() const { return stopped_ || lost_ || queue_.size() + on_the_way_ < capacity_; }
  bool has_message() const { return stopped_ || !queue_.empty(); }
  void block_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, const char* what,
                   bool (Mailbox::*condition)() const, Wait wait);
  void wait_while_hope(std::unique_lock<std::mutex>& lock);
  void send_on(std::unique_ptr<Message> message);
  bool counts_room() const { return capacity_ < (std::size_t{1} << 16); }

  const std::string channel_;
  Neighbours* const neighbours_;
  AwayWatch* const away_;
  std::mutex mutex_;  ///< guards everything below; never held while user code runs
  std::condition_variable room_, filled_;
  std::deque<std::unique_ptr<Message>> queue_;
  std::size_t capacity_ = std::size_t{1} << 20;  ///< until somebody here says otherwise
  bool stopped_ = false;
  std::optional<int> receiver_;  ///< in another process
  bool lost_ = false;            ///< the receiver is: messages are dropped
  bool received_here_ = false;
  std::size_t on_the_way_ = 0;
};

}  // namespace rubato
