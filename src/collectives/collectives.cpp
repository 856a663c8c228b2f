#include "rubato/collectives/collectives.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "rubato/context/context.h"
#include "rubato/membership/sum_machine.h"
#include "rubato/wire/tensor_sum.h"

// Thread rules
//  * `mutex_` guards the members, the table of groups and their machines. It is never held while c10d works.
//  * Sums of one group follow each other, except those with numbers, which take turns among `slots` groups of connections.

namespace rubato {
namespace {

using namespace std::chrono_literals;
constexpr std::int64_t slots = 16;
constexpr auto look_again = 100ms;
constexpr auto patience = 30min;  // of c10d; deaths are told, and what fails without one is done again

/// Sums of different numbers that share connections must not meet: what the last element is of number `number`.
float mark_of(std::int64_t number) {
  return static_cast<float>(number / slots % 8);  // small enough to be exact in every type, times the members
}

/// All tensors of one type, one after the other, then the weight and the mark of the sum's number.
torch::Tensor flatten(const TensorSum& sum, std::int64_t number) {
  std::vector<torch::Tensor> flat;
  for (const torch::Tensor& tensor : sum.tensors) {
    if (tensor.defined()) flat.push_back(tensor.detach().reshape({-1}));
  }
  if (flat.empty()) return {};
  flat.push_back(torch::full({1}, sum.weight, flat.front().options()));
  flat.push_back(torch::full({1}, mark_of(number), flat.front().options()));
  return torch::cat(flat).cpu();
}

std::shared_ptr<TensorSum> unflatten(const torch::Tensor& flat, const TensorSum& like, int parts, std::int64_t number) {
  auto sum = std::make_shared<TensorSum>();
  std::int64_t at = 0;
  for (const torch::Tensor& tensor : like.tensors) {
    if (!tensor.defined()) {
      sum->tensors.emplace_back();
      continue;
    }
    sum->tensors.push_back(flat.narrow(0, at, tensor.numel()).view(tensor.sizes()).to(tensor.device()));
    at += tensor.numel();
  }
  sum->set_parts(parts);
  sum->weight = flat.defined() ? flat[at].item<float>() : like.weight;
  if (flat.defined() && flat[at + 1].item<float>() != static_cast<float>(parts) * mark_of(number)) {
    throw std::logic_error("sums of different rounds have met: more of them are under way than connections");
  }
  return sum;
}

using Pg = std::shared_ptr<c10d::ProcessGroupGloo>;

using Work = c10::intrusive_ptr<c10d::Work>;

/// Connections of a group, and what was done with them last.
struct Connections {
  Pg group;
  Work work;
};

/// c10d cannot cancel an operation, and destroying a group waits for its operations: groups that have lost a member stay until
/// these have failed, as they do when the connection to a dead process breaks, or by their patience.
void abandon(Connections connections) {
  static std::mutex mutex;
  static auto& waiting = *new std::vector<Connections>;
  std::vector<Connections> over;
  const std::lock_guard lock(mutex);
  if (connections.group) waiting.push_back(std::move(connections));
  const auto is_over = [](const Connections& old) { return !old.work || old.work->isCompleted(); };
  const auto first_over = std::stable_partition(waiting.begin(), waiting.end(), [&](const auto& old) { return !is_over(old); });
  over.assign(std::make_move_iterator(first_over), std::make_move_iterator(waiting.end()));
  waiting.erase(first_over, waiting.end());
  if (!over.empty()) std::thread([over = std::move(over)]() mutable { over.clear(); }).detach();
}

/// Connections that are being made on a thread of their own, since members may never come.
struct Making {
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> ended{false}, given_up{false};
  Pg made;
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, look_again, [this] { return ended.load(); });
  }
};

/// What c10d's groups need of a store, at a meeting place.
class Store final : public c10d::Store {
 public:
  Store(std::shared_ptr<Rendezvous> place, std::string prefix, std::shared_ptr<Making> making)
      : place_(std::move(place)), prefix_(std::move(prefix)), making_(std::move(making)) {}
  void set(const std::string& key, const std::vector<std::uint8_t>& value) override {
    place_->put(prefix_ + key, {value.begin(), value.end()});
  }
  std::vector<std::uint8_t> get(const std::string& key) override {
    while (!making_->given_up) {
      if (const auto value = place_->get(prefix_ + key)) return {value->begin(), value->end()};
    }
    throw std::runtime_error("nobody waits for this group any more");
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) get(key);
  }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds&) override { wait(keys); }
  bool check(const std::vector<std::string>& keys) override {
    return std::all_of(keys.begin(), keys.end(),
                       [this](const std::string& key) { return place_->get(prefix_ + key).has_value(); });
  }
  std::int64_t add(const std::string&, std::int64_t) override { throw std::logic_error("no counters here"); }
  bool deleteKey(const std::string&) override { throw std::logic_error("nothing is deleted here"); }
  std::int64_t getNumKeys() override { throw std::logic_error("nobody counts here"); }
  /// Pure in newer versions of libtorch and absent from older ones, therefore not marked `override`.
  c10::intrusive_ptr<c10d::Store> clone() { return c10::make_intrusive<Store>(place_, prefix_, making_); }

 private:
  std::shared_ptr<Rendezvous> place_;
  std::string prefix_;
  std::shared_ptr<Making> making_;
};

std::shared_ptr<Making> make_connections(const std::shared_ptr<Rendezvous>& place, const std::string& prefix,
                                         const std::string& address, int me, int size) {
  auto making = std::make_shared<Making>();
  std::thread([=] {
    Pg made;
    try {
      auto options = c10d::ProcessGroupGloo::Options::create(patience);
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
      options->threads = 1;
      made = std::make_shared<c10d::ProcessGroupGloo>(c10::make_intrusive<Store>(place, prefix, making), me, size, options);
    } catch (const std::exception&) {  // whoever waits finds nothing made
    }
    const std::lock_guard lock(making->mutex);
    making->made = std::move(made);
    making->ended = true;
    making->changed.notify_all();
  }).detach();
  return making;
}

}  // namespace

class Collectives::Implementation {
 public:
  Implementation(std::string address, std::shared_ptr<Rendezvous> place)
      : address_(std::move(address)), place_(std::move(place)) {}
  ~Implementation() { clear(); }

  void meet(std::int64_t version, const std::vector<std::int64_t>& members, int replica, int part);
  void set_members(const membership::Members& members);
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, std::unique_ptr<Summable> part);
  void interrupt();
  void clear();
  void ask_with(std::function<void(const membership::SumId&)> ask) { ask_ = std::move(ask); }
  void complain_with(std::function<void(std::int64_t)> complain) { complain_ = std::move(complain); }
  std::optional<Known> asked(const membership::SumId& question);
  void answer(std::int64_t member, const membership::SumId& question, membership::SumOutcome outcome,
              std::shared_ptr<const Summable> sum);

 private:
  struct Group {
    explicit Group(const std::string& name) : machine(name) {}
    membership::SumMachine machine;
    Connections connections;
    std::int64_t version = -1;  ///< of the connections
    std::shared_ptr<const TensorSum> last;
    std::shared_ptr<const Summable> given;  ///< by a member that has finished what this one has not
  };

  Group& group_of(const std::string& name);
  bool connect(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock);
  bool sum_up(Group& group, torch::Tensor& flat, std::unique_lock<std::mutex>& lock);
  std::shared_ptr<const TensorSum> add_up(const std::string& name, Group& group, const TensorSum& mine, std::int64_t number,
                                          std::unique_lock<std::mutex>& lock);
  static double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

  const std::string address_;
  const std::shared_ptr<Rendezvous> place_;
  std::function<void(const membership::SumId&)> ask_;
  std::function<void(std::int64_t)> complain_;
  std::mutex mutex_;
  std::condition_variable changed_;
  membership::Members members_{-1, {}};
  int replica_ = 0, part_ = 0;
  bool interrupted_ = false;
  std::map<std::string, std::unique_ptr<Group>> groups_;
};

void Collectives::Implementation::meet(std::int64_t version, const std::vector<std::int64_t>& members, int replica, int part) {
  {
    const std::lock_guard lock(mutex_);
    replica_ = replica;
    part_ = part;
  }
  set_members({version, members});
}

void Collectives::Implementation::set_members(const membership::Members& members) {
  const std::lock_guard lock(mutex_);
  if (members.version <= members_.version) return;
  members_ = members;
  for (auto& [name, group] : groups_) group->machine.meet(members.version, members.replicas, replica_);
  changed_.notify_all();
}

Collectives::Implementation::Group& Collectives::Implementation::group_of(const std::string& name) {
  auto& slot = groups_[name];
  if (!slot) {
    slot = std::make_unique<Group>(name);
    slot->machine.meet(members_.version, members_.replicas, replica_);
  }
  return *slot;
}

/// Makes connections between the members of this version, where they are older. False: nobody waits for them any more.
bool Collectives::Implementation::connect(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock) {
  const std::int64_t version = group.machine.version();
  if (group.connections.group && group.version == version) return true;
  abandon(std::exchange(group.connections, {}));
  const std::vector<std::int64_t>& members = group.machine.members();
  const int me = static_cast<int>(std::find(members.begin(), members.end(), replica_) - members.begin());
  const std::string prefix = fmt::format("{}/{}/{}/", version, part_, name);
  const auto making = make_connections(place_, prefix, address_, me, static_cast<int>(members.size()));
  while (!making->ended && !interrupted_ && version == group.machine.version()) {
    lock.unlock();
    making->wait();
    lock.lock();
  }
  if (!making->ended || !making->made) {
    making->given_up = true;
    return false;
  }
  // Else they would keep each other: the group its store, the store the making, the making the group.
  group.connections = {std::exchange(making->made, nullptr), {}};
  group.version = version;
  return true;
}

/// Whether `flat` is the sum in the end.
bool Collectives::Implementation::sum_up(Group& group, torch::Tensor& flat, std::unique_lock<std::mutex>& lock) {
  const std::int64_t version = group.version;
  std::vector<torch::Tensor> tensors = {flat};
  const Pg connections = group.connections.group;
  lock.unlock();
  bool done = false, given_up = false;
  try {
    const Work work = connections->allreduce(tensors);
    lock.lock();
    group.connections.work = work;
    lock.unlock();
    while (!done && !given_up) {
      try {
        done = work->wait(look_again);
        given_up = !done;
      } catch (const std::exception&) {
        given_up = work->isCompleted();
      }
      const std::lock_guard again(mutex_);
      given_up = given_up || (!done && (interrupted_ || version != group.machine.version()));
    }
  } catch (const std::exception&) {  // the connections have failed
  }
  lock.lock();
  return done;
}

/// The sum; null where it has not come about.
std::shared_ptr<const TensorSum> Collectives::Implementation::add_up(const std::string& name, Group& group, const TensorSum& mine,
                                                                     std::int64_t number, std::unique_lock<std::mutex>& lock) {
  const std::int64_t version = group.machine.version();
  const int parts = static_cast<int>(group.machine.members().size());
  torch::Tensor flat = flatten(mine, number);  // anew each time: a sum that fails leaves anything in it
  const bool trivial = parts == 1 || !flat.defined();
  const bool done = trivial || (connect(name, group, lock) && sum_up(group, flat, lock));
  if (!done || !group.machine.added_up(version, now())) {
    group.machine.failed(version, now());
    return nullptr;
  }
  changed_.notify_all();
  return group.last = unflatten(flat, mine, parts, number);
}

std::shared_ptr<const Summable> Collectives::Implementation::all_reduce(const GroupSpec& spec, std::unique_ptr<Summable> part) {
  using Task = membership::SumMachine::Task;
  const auto& mine = dynamic_cast<const TensorSum&>(*part);
  const std::int64_t number = std::max<std::int64_t>(0, spec.number);
  const std::string name = spec.number < 0 ? spec.name : spec.name + "/" + std::to_string(number % slots);
  std::unique_lock lock(mutex_);
  if (interrupted_) throw Stopped{};
  Group& group = group_of(name);
  changed_.wait(lock, [&] { return interrupted_ || !group.machine.busy(); });  // another that shares its connections
  if (interrupted_) throw Stopped{};
  group.machine.begin(now());
  for (;;) {
    if (interrupted_) throw Stopped{};
    switch (group.machine.next(now())) {
      case Task::none:
        changed_.wait_for(lock, look_again);
        break;
      case Task::add_up:
        if (auto sum = add_up(name, group, mine, number, lock)) return sum;
        break;
      case Task::complain: {
        const std::int64_t version = group.machine.version();
        lock.unlock();
        if (complain_) complain_(version);
        lock.lock();
        break;
      }
      case Task::ask: {
        const membership::SumId question = group.machine.question();
        lock.unlock();
        if (ask_) ask_(question);
        lock.lock();
        break;
      }
      case Task::take:
        group.machine.taken();
        changed_.notify_all();
        return group.last = std::dynamic_pointer_cast<const TensorSum>(std::exchange(group.given, nullptr));
      case Task::alone:
        group.machine.taken();
        changed_.notify_all();
        return unflatten(flatten(mine, number), mine, 1, number);
    }
  }
}

std::optional<Collectives::Known> Collectives::Implementation::asked(const membership::SumId& question) {
  std::unique_lock lock(mutex_);
  if (members_.version < 0) return std::nullopt;
  Group& group = group_of(question.group);
  if (group.machine.is_behind(question)) {
    const std::int64_t version = group.machine.version();
    lock.unlock();
    if (complain_) complain_(version);
    return std::nullopt;
  }
  const auto outcome = group.machine.asked(question);
  if (!outcome) return std::nullopt;
  return Known{*outcome, *outcome == membership::SumOutcome::finished ? group.last : nullptr};
}

void Collectives::Implementation::answer(std::int64_t member, const membership::SumId& question, membership::SumOutcome outcome,
                                         std::shared_ptr<const Summable> sum) {
  const std::lock_guard lock(mutex_);
  const auto found = groups_.find(question.group);
  if (found == groups_.end()) return;
  if (outcome == membership::SumOutcome::finished && !sum) return;
  if (found->second->machine.answered(member, question, outcome)) found->second->given = std::move(sum);
  changed_.notify_all();
}

void Collectives::Implementation::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  changed_.notify_all();
}

void Collectives::Implementation::clear() {
  const std::lock_guard lock(mutex_);
  for (auto& [name, group] : groups_) abandon(std::move(group->connections));
  groups_.clear();
  interrupted_ = false;
  members_ = {-1, {}};
}

namespace {

/// Gloo logs each connection that fails, of which those who use it hear by an exception. TORCH_CPP_LOG_LEVEL shows it.
void keep_logs_of_failed_sums_quiet() {
  setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);
  c10::initLogging();
}

}  // namespace

Collectives::Collectives(std::string address, std::shared_ptr<Rendezvous> place)
    : implementation_(std::make_unique<Implementation>(std::move(address), std::move(place))) {
  static std::once_flag once;
  std::call_once(once, keep_logs_of_failed_sums_quiet);
}
Collectives::~Collectives() = default;
void Collectives::meet(std::int64_t version, const std::vector<std::int64_t>& members, int replica, int part) {
  implementation_->meet(version, members, replica, part);
}
void Collectives::set_members(const membership::Members& members) {
  implementation_->set_members(members);
}
std::shared_ptr<const Summable> Collectives::all_reduce(const GroupSpec& group, int, std::unique_ptr<Summable> part) {
  return implementation_->all_reduce(group, std::move(part));
}
void Collectives::interrupt() {
  implementation_->interrupt();
}
void Collectives::clear() {
  implementation_->clear();
}
void Collectives::ask_with(std::function<void(const membership::SumId&)> ask) {
  implementation_->ask_with(std::move(ask));
}
void Collectives::complain_with(std::function<void(std::int64_t)> complain) {
  implementation_->complain_with(std::move(complain));
}
std::optional<Collectives::Known> Collectives::asked(const membership::SumId& question) {
  return implementation_->asked(question);
}
void Collectives::answer(std::int64_t member, const membership::SumId& question, membership::SumOutcome outcome,
                         std::shared_ptr<const Summable> sum) {
  implementation_->answer(member, question, outcome, std::move(sum));
}

}  // namespace rubato
