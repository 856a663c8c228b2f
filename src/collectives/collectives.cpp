#include "rubato/collectives/collectives.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "rubato/context/context.h"
#include "rubato/wire/tensor_sum.h"

// Thread rules
//  * `mutex_` guards the members and the table of groups. It is never held while c10d works.
//  * A sum counts as finished only if the group version is still the one it began in, which is looked at under `mutex_`: so what
//    this member has once called unfinished stays so.
//  * Sums of one group follow each other, except those with numbers, which take turns among `slots` groups of connections.

namespace rubato {
namespace {

using namespace std::chrono_literals;
constexpr std::int64_t slots = 16;
constexpr auto look_again = 100ms;
constexpr auto before_complaining = 2s;
constexpr auto patience = 12h;  // of c10d; deaths are told

/// All tensors of one type, one after the other, and the weight as the last element.
torch::Tensor flatten(const TensorSum& sum) {
  std::vector<torch::Tensor> flat;
  for (const torch::Tensor& tensor : sum.tensors) {
    if (tensor.defined()) flat.push_back(tensor.detach().reshape({-1}));
  }
  if (flat.empty()) return {};
  flat.push_back(torch::full({1}, sum.weight, flat.front().options()));
  return torch::cat(flat).cpu();
}

std::shared_ptr<TensorSum> unflatten(const torch::Tensor& flat, const TensorSum& like, int parts) {
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
  return sum;
}

using Pg = std::shared_ptr<c10d::ProcessGroupGloo>;

/// c10d cannot cancel an operation, and destroying a group waits for its operations: groups that have lost a member stay.
void abandon(Pg connections) {
  static std::mutex mutex;
  static auto& for_ever = *new std::vector<Pg>;
  if (!connections) return;
  const std::lock_guard lock(mutex);
  for_ever.push_back(std::move(connections));
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

/// What c10d's groups need of a store, at a rendezvous.
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

  void meet(std::int64_t term, std::int64_t group_version, const std::vector<std::int64_t>& members, int replica, int part);
  void set_members(std::int64_t group_version, const std::vector<std::int64_t>& members);
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  void interrupt();
  void clear();
  void ask_with(std::function<void(const SumQuestion&)> ask) { ask_ = std::move(ask); }
  void complain_with(std::function<void(std::int64_t)> complain) { complain_ = std::move(complain); }
  std::shared_ptr<const Summable> finished(const SumQuestion& question);
  void answer(std::int64_t member, const SumQuestion& question, std::shared_ptr<const Summable> sum);

 private:
  struct Group {
    Pg connections;
    std::int64_t group_version = -1;  ///< of the connections
    std::int64_t finished = 0;        ///< sums
    std::shared_ptr<const TensorSum> last;
    std::set<std::int64_t> lacking;         ///< members that have not finished what is asked for
    std::shared_ptr<const Summable> given;  ///< by one that has
    std::optional<SumQuestion> asked;
  };

  Group& group_of(const std::string& name);
  Pg connections_of(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock);
  bool sum_up(const Pg& connections, torch::Tensor& flat, std::int64_t group_version);
  std::shared_ptr<const TensorSum> settle(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock);
  bool all_others_lack(const Group& group) const;

  const std::string address_;
  const std::shared_ptr<Rendezvous> place_;
  std::function<void(const SumQuestion&)> ask_;
  std::function<void(std::int64_t)> complain_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t term_ = 0, group_version_ = 0;
  std::vector<std::int64_t> members_;
  int replica_ = 0, part_ = 0;
  bool interrupted_ = false;
  std::map<std::string, std::unique_ptr<Group>> groups_;
};

void Collectives::Implementation::meet(std::int64_t term, std::int64_t group_version, const std::vector<std::int64_t>& members,
                                       int replica, int part) {
  const std::lock_guard lock(mutex_);
  replica_ = replica;
  part_ = part;
  if (term == term_ && group_version < group_version_) return;  // members have changed since this was said
  if (term != term_ || group_version != group_version_) {
    for (auto& [name, group] : groups_) abandon(std::move(group->connections));
    groups_.clear();
  }
  term_ = term;
  group_version_ = group_version;
  members_ = members;
}

Collectives::Implementation::Group& Collectives::Implementation::group_of(const std::string& name) {
  auto& slot = groups_[name];
  if (!slot) slot = std::make_unique<Group>();
  return *slot;
}

/// Connections between the members of this group version, made anew where they are older; null where nobody waits for them any
/// more.
Pg Collectives::Implementation::connections_of(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock) {
  if (group.connections && group.group_version == group_version_) return group.connections;
  abandon(std::move(group.connections));
  const std::int64_t group_version = group_version_;
  const int me = static_cast<int>(std::find(members_.begin(), members_.end(), replica_) - members_.begin());
  const std::string prefix = fmt::format("{}/{}/{}/{}/", term_, group_version, part_, name);
  const auto making = make_connections(place_, prefix, address_, me, static_cast<int>(members_.size()));
  while (!making->ended && !interrupted_ && group_version == group_version_) {
    lock.unlock();
    making->wait();
    lock.lock();
  }
  if (!making->ended || !making->made) {
    making->given_up = true;
    return nullptr;
  }
  group.connections = making->made;
  group.group_version = group_version;
  return group.connections;
}

/// Whether `flat` is the sum in the end.
bool Collectives::Implementation::sum_up(const Pg& connections, torch::Tensor& flat, std::int64_t group_version) {
  std::vector<torch::Tensor> tensors = {flat};
  try {
    const auto work = connections->allreduce(tensors);
    for (;;) {
      try {
        return work->wait(look_again);
      } catch (const std::exception&) {
        if (work->isCompleted()) return false;
      }
      const std::lock_guard lock(mutex_);
      if (interrupted_ || group_version != group_version_) return false;
    }
  } catch (const std::exception&) {
    return false;
  }
}

std::shared_ptr<const Summable> Collectives::Implementation::all_reduce(const GroupSpec& spec, int,
                                                                        std::unique_ptr<Summable> part) {
  const auto& mine = dynamic_cast<const TensorSum&>(*part);
  const std::string name = spec.number < 0 ? spec.name : spec.name + "/" + std::to_string(spec.number % slots);
  for (;;) {
    torch::Tensor flat = flatten(mine);  // anew each time: a sum that fails leaves anything in it
    std::unique_lock lock(mutex_);
    if (interrupted_) throw Stopped{};
    Group& group = group_of(name);
    const std::int64_t group_version = group_version_;
    const int parts = static_cast<int>(members_.size());
    bool done = parts == 1 || !flat.defined();
    if (!done) {
      if (const Pg connections = connections_of(name, group, lock)) {
        lock.unlock();
        done = sum_up(connections, flat, group_version);
        lock.lock();
      }
    }
    if (done && group_version == group_version_) {
      ++group.finished;
      return group.last = unflatten(flat, mine, parts);
    }
    // Somebody has died: who is left is said by whoever watches; then finish with them.
    while (!changed_.wait_for(lock, before_complaining, [&] { return interrupted_ || group_version_ != group_version; })) {
      lock.unlock();
      if (complain_) complain_(group_version);
      lock.lock();
    }
    if (interrupted_) throw Stopped{};
    if (auto settled = settle(name, group, lock)) return settled;
  }
}

/// The result of the sum under way, from a member that has finished it; null: none has.
std::shared_ptr<const TensorSum> Collectives::Implementation::settle(const std::string& name, Group& group,
                                                                     std::unique_lock<std::mutex>& lock) {
  while (!interrupted_) {
    const SumQuestion question{name, group.finished, group_version_};
    group.asked = question;
    group.lacking.clear();
    group.given.reset();
    lock.unlock();
    if (ask_) ask_(question);
    lock.lock();
    changed_.wait(
        lock, [&] { return interrupted_ || group_version_ != question.group_version || group.given || all_others_lack(group); });
    if (interrupted_ || group_version_ != question.group_version) continue;
    group.asked.reset();
    if (!group.given) return nullptr;
    ++group.finished;
    return group.last = std::dynamic_pointer_cast<const TensorSum>(group.given);
  }
  throw Stopped{};
}

bool Collectives::Implementation::all_others_lack(const Group& group) const {
  return std::all_of(members_.begin(), members_.end(),
                     [&](std::int64_t member) { return member == replica_ || group.lacking.contains(member); });
}

void Collectives::Implementation::set_members(std::int64_t group_version, const std::vector<std::int64_t>& members) {
  const std::lock_guard lock(mutex_);
  if (group_version <= group_version_) return;
  group_version_ = group_version;
  members_ = members;
  changed_.notify_all();
}

std::shared_ptr<const Summable> Collectives::Implementation::finished(const SumQuestion& question) {
  const std::lock_guard lock(mutex_);
  const auto found = groups_.find(question.group);
  if (found == groups_.end() || found->second->finished != question.number + 1) return nullptr;
  return found->second->last;
}

void Collectives::Implementation::answer(std::int64_t member, const SumQuestion& question, std::shared_ptr<const Summable> sum) {
  const std::lock_guard lock(mutex_);
  const auto found = groups_.find(question.group);
  if (found == groups_.end() || !found->second->asked) return;
  Group& group = *found->second;
  if (group.asked->number != question.number || group.asked->group_version != question.group_version) return;
  if (sum) {
    group.given = std::move(sum);
  } else {
    group.lacking.insert(member);
  }
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
  members_.clear();
}

Collectives::Collectives(std::string address, std::shared_ptr<Rendezvous> place)
    : implementation_(std::make_unique<Implementation>(std::move(address), std::move(place))) {}
Collectives::~Collectives() = default;
void Collectives::meet(std::int64_t term, std::int64_t group_version, const std::vector<std::int64_t>& members, int replica,
                       int part) {
  implementation_->meet(term, group_version, members, replica, part);
}
void Collectives::set_members(std::int64_t group_version, const std::vector<std::int64_t>& members) {
  implementation_->set_members(group_version, members);
}
std::shared_ptr<const Summable> Collectives::all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) {
  return implementation_->all_reduce(group, rank, std::move(part));
}
void Collectives::interrupt() {
  implementation_->interrupt();
}
void Collectives::clear() {
  implementation_->clear();
}
void Collectives::ask_with(std::function<void(const SumQuestion&)> ask) {
  implementation_->ask_with(std::move(ask));
}
void Collectives::complain_with(std::function<void(std::int64_t)> complain) {
  implementation_->complain_with(std::move(complain));
}
std::shared_ptr<const Summable> Collectives::finished(const SumQuestion& question) {
  return implementation_->finished(question);
}
void Collectives::answer(std::int64_t member, const SumQuestion& question, std::shared_ptr<const Summable> sum) {
  implementation_->answer(member, question, std::move(sum));
}

}  // namespace rubato
