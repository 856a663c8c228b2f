#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "rubato/runtimes/options.h"
#include "runtimes/group.h"
#include "runtimes/role_context.h"

// Thread rules and invariants
//  * A Mailbox has one mutex for its queue; the runtime's mutex covers the table of mailboxes and the first failure only.
//    Neither is held while user code runs.
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

  void put(std::unique_ptr<Message> message) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return stopped_ || queue_.size() < capacity_; });
    if (stopped_) throw Stopped{};
    queue_.push_back(std::move(message));
    lock.unlock();
    filled_.notify_one();
  }

  std::unique_ptr<Message> take() {
    std::unique_lock lock(mutex_);
    filled_.wait(lock, [&] { return stopped_ || !queue_.empty(); });
    if (stopped_) throw Stopped{};
    auto message = std::move(queue_.front());
    queue_.pop_front();
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
  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable room_, filled_;
  std::deque<std::unique_ptr<Message>> queue_;
  bool stopped_ = false;
};

class ThreadRuntime final : public Runtime {
 public:
  explicit ThreadRuntime(const RuntimeOptions& options) : options_(options), start_(Clock::now()) {}

  void run(const std::vector<Role>& roles) override;
  double now() const override { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  const char* kind() const override { return "threads"; }

  Mailbox& mailbox(const ChannelSpec& channel);
  /// Throws Stopped after a failure elsewhere.
  void check_running();
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  /// Sleeps, but no longer than until a failure.
  void pause(double seconds);
  const RuntimeOptions& options() const { return options_; }

 private:
  void execute(const Role& role);
  void fail(std::exception_ptr failure);

  RuntimeOptions options_;
  Clock::time_point start_;
  std::mutex mutex_;
  std::condition_variable stop_signal_;
  std::map<std::string, std::unique_ptr<Mailbox>> mailboxes_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::mutex sums_mutex_;  ///< guards the three below; the last member adds up under it
  std::condition_variable sum_complete_;
  std::map<std::string, std::shared_ptr<Sum>> sums_;
  bool sums_stopped_ = false;
};

class ThreadContext final : public RoleContext {
 public:
  ThreadContext(const std::string& name, ThreadRuntime& runtime) : RoleContext(name, runtime.options()), runtime_(runtime) {}

  void send(const ChannelSpec& channel, std::unique_ptr<Message> message) override {
    const Event event{.kind = EventKind::send, .batch = message->batch(), .what = observed() ? channel.name : ""};
    const double begin = now();
    runtime_.mailbox(channel).put(std::move(message));
    report(event, begin, now());
  }
  std::unique_ptr<Message> receive(const ChannelSpec& channel) override {
    const double begin = now();
    auto message = runtime_.mailbox(channel).take();
    report({.kind = EventKind::receive, .batch = message->batch(), .what = channel.name}, begin, now());
    return message;
  }
  void compute(const char* what, std::int64_t batch, double, FunctionRef<void()> work) override {
    runtime_.check_running();
    if (const double delay = next_delay_ms(); delay > 0) sleep(delay * 1e-3);
    const double begin = now();
    work();
    if (observed()) report({.kind = EventKind::compute, .batch = batch, .what = what}, begin, now());
  }
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    const double begin = now();
    auto sum = runtime_.all_reduce(group, rank, std::move(part));
    report({.kind = EventKind::all_reduce, .what = observed() ? group.name : ""}, begin, now());
    return sum;
  }
  void sleep(double seconds) override { runtime_.pause(seconds); }
  double now() const override { return runtime_.now(); }

 private:
  ThreadRuntime& runtime_;
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

std::shared_ptr<const Summable> ThreadRuntime::all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) {
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
  const std::lock_guard lock(sums_mutex_);
  sums_stopped_ = true;
  sum_complete_.notify_all();
}

void ThreadRuntime::execute(const Role& role) {
  try {
    if (options_.on_thread_start) options_.on_thread_start();
    ThreadContext me(role.name, *this);
    role.run(me);
  } catch (const Stopped&) {
    return;
  } catch (...) {
    fail(std::current_exception());
  }
}

void ThreadRuntime::run(const std::vector<Role>& roles) {
  {
    std::vector<std::jthread> threads;
    for (const Role& role : roles) threads.emplace_back([this, &role] { execute(role); });
  }
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace

std::unique_ptr<Runtime> make_thread_runtime(const RuntimeOptions& options) {
  return std::make_unique<ThreadRuntime>(options);
}

}  // namespace rubato
