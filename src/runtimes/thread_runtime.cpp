#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include "rubato/runtimes/options.h"
#include "runtimes/group.h"
#include "runtimes/processors.h"
#include "runtimes/role_context.h"
#include "runtimes/waiting.h"

// Thread rules and invariants
//  * A Mailbox has one mutex for its queue; the runtime's mutex covers the table of mailboxes and the first failure only.
//    Neither is held while user code runs.
//  * `turns_mutex_` is innermost but for the order's own; it is taken under a Mailbox's.
//  * A sum is dropped from the table by the member that completes it; the others hold it until they have its result.
//  * `stopping_` is set once per failed segment, before every mailbox is woken: a role that blocks afterwards sees it under
//    the mailbox's mutex, so no role sleeps through a failure.
//  * Mailboxes outlive segments: what is in them stays for the next one.

namespace rubato {
namespace {

using Clock = std::chrono::steady_clock;

class Mailbox {
 public:
  explicit Mailbox(std::size_t capacity) : capacity_(capacity) {}

  /// Runs an action at its place in the order of acts on this end of the channel.
  using InOrder = FunctionRef<void(FunctionRef<void()>)>;

  /// Says that the calling role waits for `what`, until the returned scope ends; null: nobody wants to know.
  using Wait = FunctionRef<std::unique_ptr<Waiting::Scope>(const char* what, std::function<bool()> may_go_on)>;

  void put(std::unique_ptr<Message> message, Wait wait, InOrder in_order) {
    std::unique_lock lock(mutex_);
    block_until(lock, room_, "room in", &Mailbox::has_room, wait);
    if (stopped_) throw Stopped{};
    in_order([&] { queue_.push_back(std::move(message)); });
    lock.unlock();
    filled_.notify_one();
  }

  std::unique_ptr<Message> take(FunctionRef<void(const Message&)> found, Wait wait, InOrder in_order) {
    std::unique_lock lock(mutex_);
    block_until(lock, filled_, "a message in", &Mailbox::has_message, wait);
    if (stopped_) throw Stopped{};
    found(*queue_.front());
    std::unique_ptr<Message> message;
    in_order([&] {
      message = std::move(queue_.front());
      queue_.pop_front();
    });
    lock.unlock();
    room_.notify_one();
    return message;
  }

  void set_stopped(bool stopped) {
    const std::lock_guard lock(mutex_);
    stopped_ = stopped;
    room_.notify_all();
    filled_.notify_all();
  }

 private:
  bool has_room() const { return stopped_ || queue_.size() < capacity_; }
  bool has_message() const { return stopped_ || !queue_.empty(); }

  void block_until(std::unique_lock<std::mutex>& lock, std::condition_variable& changed, const char* what,
                   bool (Mailbox::*condition)() const, Wait wait) {
    if ((this->*condition)()) return;
    const auto waiting = wait(what, [this, condition] {
      const std::lock_guard look(mutex_);
      return (this->*condition)();
    });
    changed.wait(lock, [&] { return (this->*condition)(); });
  }

  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable room_, filled_;
  std::deque<std::unique_ptr<Message>> queue_;
  bool stopped_ = false;
};

class ThreadRuntime final : public Runtime {
 public:
  explicit ThreadRuntime(const RuntimeOptions& options)
      : options_(options), start_(Clock::now()), processors_(options.processors) {}

  void run(const std::vector<Role>& roles, const UnitEvents& units) override;
  double now() const override { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  const char* kind() const override { return "threads"; }

  Mailbox& mailbox(const ChannelSpec& channel);
  /// Throws Stopped after a failure elsewhere.
  void check_running();
  std::shared_ptr<const Summable> all_reduce(const std::string& role, const GroupSpec& group, int rank,
                                             std::unique_ptr<Summable> part);
  /// Sleeps, but no longer than until a failure.
  void pause(double seconds);
  void wait_for_turn(const std::string& role, Order& order, const Event& event);
  void turn_ended();
  const RuntimeOptions& options() const { return options_; }
  Processors& processors() { return processors_; }
  Waiting& waiting() { return *waiting_; }

 private:
  void execute(const Role& role);
  void fail(std::exception_ptr failure);

  RuntimeOptions options_;
  Clock::time_point start_;
  Processors processors_;
  std::optional<Waiting> waiting_;  ///< during a segment
  std::mutex mutex_;
  std::condition_variable stop_signal_;
  std::map<std::string, std::unique_ptr<Mailbox>> mailboxes_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::mutex sums_mutex_;  ///< guards the three below; the last member adds up under it
  std::condition_variable sum_complete_;
  std::map<std::string, std::shared_ptr<Sum>> sums_;
  bool sums_stopped_ = false;
  std::mutex turns_mutex_;  ///< guards the flag; taken by roles that end a turn, so that no waiter misses it
  std::condition_variable turn_has_ended_;
  bool turns_stopped_ = false;
};

class ThreadContext final : public RoleContext {
 public:
  ThreadContext(const std::string& name, ThreadRuntime& runtime)
      : RoleContext(name, runtime.options()), runtime_(runtime), processor_(runtime.processors()) {}

  void send(const ChannelSpec& channel, std::unique_ptr<Message> message) override {
    Event event{.kind = EventKind::send, .batch = message->batch(), .what = events_count() ? channel.name : ""};
    const double begin = now();
    processor_.release();
    await_turn(event);
    runtime_.mailbox(channel).put(
        std::move(message), [&](const char* what, auto may_go_on) { return waits_for(what, channel, std::move(may_go_on)); },
        [&](FunctionRef<void()> action) { in_order(event, action); });
    report(event, begin, now());
  }
  std::unique_ptr<Message> receive(const ChannelSpec& channel) override {
    Event event{.kind = EventKind::receive, .what = events_count() ? channel.name : ""};
    const double begin = now();
    processor_.release();
    await_turn(event);
    auto message = runtime_.mailbox(channel).take(
        [&](const Message& found) { event.batch = found.batch(); },
        [&](const char* what, auto may_go_on) { return waits_for(what, channel, std::move(may_go_on)); },
        [&](FunctionRef<void()> action) { in_order(event, action); });
    report(event, begin, now());
    return message;
  }
  void compute(const char* what, std::int64_t batch, double, FunctionRef<void()> work) override {
    runtime_.check_running();
    if (const double delay = next_delay_ms(); delay > 0) sleep(delay * 1e-3);
    processor_.acquire();
    const double begin = now();
    work();
    if (observed()) report({.kind = EventKind::compute, .batch = batch, .what = what}, begin, now());
    processor_.offer();
  }
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    processor_.release();
    const double begin = now();
    auto sum = runtime_.all_reduce(name(), group, rank, std::move(part));
    report({.kind = EventKind::all_reduce, .what = observed() ? group.name : ""}, begin, now());
    return sum;
  }
  void sleep(double seconds) override {
    processor_.release();
    runtime_.pause(seconds);
  }
  double now() const override { return runtime_.now(); }

 protected:
  void wait_for_turn(Order& order, const Event& event) override {
    processor_.release();
    runtime_.wait_for_turn(name(), order, event);
  }
  void turn_ended() override { runtime_.turn_ended(); }

 private:
  std::unique_ptr<Waiting::Scope> waits_for(const char* what, const ChannelSpec& channel, std::function<bool()> may_go_on) {
    return std::make_unique<Waiting::Scope>(runtime_.waiting(), name(), what + (" '" + channel.name + "'"), std::move(may_go_on));
  }

  ThreadRuntime& runtime_;
  Processors::Hold processor_;  // from a `compute` to the next blocking verb, or to the end of a turn
};

Mailbox& ThreadRuntime::mailbox(const ChannelSpec& channel) {
  const std::lock_guard lock(mutex_);
  auto& slot = mailboxes_[channel.name];
  if (!slot) {
    slot = std::make_unique<Mailbox>(channel.capacity);
    slot->set_stopped(stopping_);
  }
  return *slot;
}

std::shared_ptr<const Summable> ThreadRuntime::all_reduce(const std::string& role, const GroupSpec& group, int rank,
                                                          std::unique_ptr<Summable> part) {
  std::unique_lock lock(sums_mutex_);
  auto& slot = sums_[group.name];
  if (!slot) slot = std::make_shared<Sum>(group.size);
  const std::shared_ptr<Sum> sum = slot;
  sum->put(rank, std::move(part));
  if (sum->complete()) {
    sums_.erase(group.name);
    sum_complete_.notify_all();
    return sum->result();
  }
  const Waiting::Scope waiting(*waiting_, role, "the other members of '" + group.name + "'", [this, sum] {
    const std::lock_guard look(sums_mutex_);
    return sums_stopped_ || sum->complete();
  });
  sum_complete_.wait(lock, [&] { return sums_stopped_ || sum->complete(); });
  if (!sum->complete()) throw Stopped{};
  return sum->result();
}

void ThreadRuntime::check_running() {
  const std::lock_guard lock(mutex_);
  if (stopping_) throw Stopped{};
}

void ThreadRuntime::pause(double seconds) {
  std::unique_lock lock(mutex_);
  if (stop_signal_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return stopping_; })) throw Stopped{};
}

void ThreadRuntime::fail(std::exception_ptr failure) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = failure;
    stopping_ = true;
    stop_signal_.notify_all();
    for (auto& [name, mailbox] : mailboxes_) mailbox->set_stopped(true);
  }
  {
    const std::lock_guard lock(sums_mutex_);
    sums_stopped_ = true;
    sum_complete_.notify_all();
  }
  const std::lock_guard lock(turns_mutex_);
  turns_stopped_ = true;
  turn_has_ended_.notify_all();
}

void ThreadRuntime::wait_for_turn(const std::string& role, Order& order, const Event& event) {
  std::unique_lock lock(turns_mutex_);
  const auto may_go_on = [this, &order, role, event] { return turns_stopped_ || order.may_act(role, event); };
  if (!may_go_on()) {
    const Waiting::Scope waiting(*waiting_, role, "its turn: '" + order.next_to_act(event) + "' comes first", [=, this] {
      const std::lock_guard look(turns_mutex_);
      return may_go_on();
    });
    turn_has_ended_.wait(lock, may_go_on);
  }
  if (turns_stopped_) throw Stopped{};
}

void ThreadRuntime::turn_ended() {
  const std::lock_guard lock(turns_mutex_);
  turn_has_ended_.notify_all();
}

void ThreadRuntime::execute(const Role& role) {
  try {
    if (options_.on_thread_start) options_.on_thread_start();
    ThreadContext me(role.name, *this);
    role.run(me);
  } catch (const Stopped&) {
  } catch (...) {
    fail(std::current_exception());
  }
  waiting_->role_left();
}

void ThreadRuntime::run(const std::vector<Role>& roles, const UnitEvents&) {
  waiting_.emplace(static_cast<int>(roles.size()),
                   [this](const std::string& sentence) { fail(std::make_exception_ptr(std::logic_error(sentence))); });
  {
    std::vector<std::jthread> threads;
    for (const Role& role : roles) threads.emplace_back([this, &role] { execute(role); });
  }
  waiting_.reset();
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace

std::unique_ptr<Runtime> make_thread_runtime(const RuntimeOptions& options) {
  return std::make_unique<ThreadRuntime>(options);
}

}  // namespace rubato
