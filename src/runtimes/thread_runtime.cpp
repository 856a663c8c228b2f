#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "rubato/core/error.h"
#include "rubato/core/threads.h"
#include "rubato/runtimes/processes.h"
#include "runtimes/absence.h"
#include "runtimes/group.h"
#include "runtimes/mailbox.h"
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

/// Roles of one process, alone or with neighbours.
class ThreadRuntime final : public ProcessRuntime {
 public:
  ThreadRuntime(const RuntimeOptions& options, Neighbours* neighbours, double patience)
      : options_(options), start_(Clock::now()), processors_(options.processors), neighbours_(neighbours), away_(patience) {}

  void run(const std::vector<Role>& roles, const UnitEvents& units) override;
  double now() const override { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  const char* kind() const override { return neighbours_ == nullptr ? "threads" : "processes"; }

  void deliver(int peer, const std::string& channel, std::int64_t batch, Packed content) override;
  void located(const std::string& channel, int peer) override { mailbox(channel).located(peer); }
  void taken(const std::string& channel) override { mailbox(channel).taken(); }
  void lost(int peer) override;
  void expect(int peer) override;
  void set_away(bool away) override { away_.set_away(away); }
  void interrupt() override { fail(std::make_exception_ptr(Stopped{})); }
  void clear() override;
  WaitCount waited() const override;

  /// A role has waited for another process.
  void has_waited(double seconds, bool in_vain);
  Neighbours* neighbours() { return neighbours_; }

  Mailbox& mailbox(const std::string& channel);
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

  Neighbours* const neighbours_;
  AwayWatch away_;
  mutable std::mutex waits_mutex_;
  WaitCount waited_;
};

/// Measures a wait for another process.
class WaitScope {
 public:
  WaitScope(ThreadRuntime& runtime, bool wanted) : runtime_(runtime), wanted_(wanted), begin_(runtime.now()) {}
  ~WaitScope() {
    if (wanted_) runtime_.has_waited(runtime_.now() - begin_, std::uncaught_exceptions() > 0);
  }
  WaitScope(const WaitScope&) = delete;
  WaitScope& operator=(const WaitScope&) = delete;

 private:
  ThreadRuntime& runtime_;
  bool wanted_;
  double begin_;
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
    runtime_.mailbox(channel.name)
        .put(
            std::move(message), channel.capacity,
            [&](const char* what, auto may_go_on) { return waits_for(what, channel, std::move(may_go_on)); },
            [&](FunctionRef<void()> action) { in_order(event, action); });
    report(event, begin, now());
  }
  std::unique_ptr<Message> receive(const ChannelSpec& channel) override {
    Event event{.kind = EventKind::receive, .what = events_count() ? channel.name : ""};
    const double begin = now();
    processor_.release();
    await_turn(event);
    Mailbox& mailbox = runtime_.mailbox(channel.name);
    if (runtime_.neighbours() != nullptr && mailbox.first_receive()) runtime_.neighbours()->listens(channel.name);
    const WaitScope waits(runtime_, channel.may_be_lost);
    auto message = mailbox.take(
        channel, [&](const Message& found) { event.batch = found.batch(); },
        [&](const char* what, auto may_go_on) { return waits_for(what, channel, std::move(may_go_on)); },
        [&](FunctionRef<void()> action) { in_order(event, action); });
    report(event, begin, now());
    return message;
  }
  void compute(Computation what, std::int64_t batch, double, FunctionRef<void()> work) override {
    runtime_.check_running();
    if (const double delay = next_delay_ms(); delay > 0) sleep(delay * 1e-3);
    processor_.acquire();
    const double begin = now();
    work();
    if (observed()) {
      report({.kind = EventKind::compute, .batch = batch, .computation = what, .what = to_string(what)}, begin, now());
    }
    processor_.offer();
  }
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    processor_.release();
    const double begin = now();
    auto sum = runtime_.all_reduce(name(), group, rank, std::move(part));
    report({.kind = EventKind::all_reduce, .what = observed() ? group.key() : ""}, begin, now());
    return sum;
  }
  void refuse(const ChannelSpec& channel, const PackedMessage& message, const std::string& why) override {
    if (runtime_.neighbours() == nullptr) return Context::refuse(channel, message, why);
    runtime_.neighbours()->refuse(message.peer, channel.name, why);
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

Mailbox& ThreadRuntime::mailbox(const std::string& channel) {
  const std::lock_guard lock(mutex_);
  auto& slot = mailboxes_[channel];
  if (!slot) {
    slot = std::make_unique<Mailbox>(channel, neighbours_, neighbours_ == nullptr ? nullptr : &away_);
    slot->set_stopped(stopping_);
  }
  return *slot;
}

void ThreadRuntime::deliver(int peer, const std::string& channel, std::int64_t batch, Packed content) {
  auto message = std::make_unique<PackedMessage>();
  message->content = std::move(content);
  message->of_batch = batch;
  message->peer = peer;
  mailbox(channel).deliver(std::move(message));
}

void ThreadRuntime::lost(int peer) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, mailbox] : mailboxes_) mailbox->lost(peer);
}

void ThreadRuntime::expect(int peer) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, mailbox] : mailboxes_) mailbox->expect(peer);
}

void ThreadRuntime::clear() {
  const std::scoped_lock lock(mutex_, sums_mutex_, turns_mutex_);
  failure_ = nullptr;
  stopping_ = sums_stopped_ = turns_stopped_ = false;
  sums_.clear();
  for (auto& [name, mailbox] : mailboxes_) mailbox->clear();
}

void ThreadRuntime::has_waited(double seconds, bool in_vain) {
  const std::lock_guard lock(waits_mutex_);
  ++waited_.waits;
  if (in_vain) ++waited_.in_vain;
  waited_.seconds += seconds;
  waited_.longest = std::max(waited_.longest, seconds);
}

WaitCount ThreadRuntime::waited() const {
  const std::lock_guard lock(waits_mutex_);
  return waited_;
}

std::shared_ptr<const Summable> ThreadRuntime::all_reduce(const std::string& role, const GroupSpec& group, int rank,
                                                          std::unique_ptr<Summable> part) {
  if (neighbours_ != nullptr && group.size > 1) {
    const WaitScope waits(*this, true);
    return neighbours_->all_reduce(group, rank, std::move(part));
  }
  std::unique_lock lock(sums_mutex_);
  auto& slot = sums_[group.key()];
  if (!slot) slot = std::make_shared<Sum>(group.size);
  const std::shared_ptr<Sum> sum = slot;
  sum->put(rank, std::move(part));
  if (sum->complete()) {
    sums_.erase(group.key());
    sum_complete_.notify_all();
    return sum->result();
  }
  const Waiting::Scope waiting(*waiting_, role, "the other members of '" + group.key() + "'", [this, sum] {
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
  const bool alone = neighbours_ == nullptr;  // else a message may come from outside at any time: no deadlock is certain
  waiting_.emplace(alone ? static_cast<int>(roles.size()) : std::numeric_limits<int>::max(),
                   [this](const std::string& sentence) { fail(std::make_exception_ptr(std::logic_error(sentence))); });
  {
    std::vector<std::jthread> threads;
    try {
      for (const Role& role : roles) threads.emplace_back([this, &role] { execute(role); });
    } catch (const std::system_error&) {  // those that have begun would wait for the others for ever
      fail(std::make_exception_ptr(no_more_threads()));
    }
  }
  waiting_.reset();
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace

std::unique_ptr<Runtime> make_thread_runtime(const RuntimeOptions& options) {
  return std::make_unique<ThreadRuntime>(options, nullptr, 0);
}

std::unique_ptr<ProcessRuntime> make_process_runtime(const RuntimeOptions& options, Neighbours& neighbours, double patience) {
  return std::make_unique<ThreadRuntime>(options, &neighbours, patience);
}

}  // namespace rubato
