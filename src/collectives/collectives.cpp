#include "rubato/collectives/collectives.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "rubato/context/context.h"
#include "rubato/replica/tensor_sum.h"

// Thread rules
//  * `mutex_` guards the members and the table of groups. It is never held while c10d works.
//  * A sum counts as finished only if the generation is still the one it began in, which is looked at under `mutex_`: so what
//  this
//    member has once called unfinished stays so.
//  * Sums of one group follow each other, except those with numbers, which take turns among `slots` groups of connections.

namespace rubato {
namespace {

using namespace std::chrono_literals;
constexpr std::int64_t slots = 16;
constexpr auto look_again = 100ms;
constexpr auto patience = 12h;  // of c10d; deaths are told

/// All tensors of one type, one after the other.
torch::Tensor flatten(const TensorSum& sum) {
  std::vector<torch::Tensor> flat;
  for (const torch::Tensor& tensor : sum.tensors) {
    if (tensor.defined()) flat.push_back(tensor.detach().reshape({-1}));
  }
  return flat.empty() ? torch::Tensor() : torch::cat(flat).cpu();
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
  return sum;
}

using Pg = std::shared_ptr<c10d::ProcessGroupGloo>;

/// c10d cannot cancel an operation, and destroying a group waits for its operations: groups that have lost a member stay.
void abandon(Pg connections) {
  if (connections) new Pg(std::move(connections));
}

/// Connections that are being made on a thread of their own, since members may never come.
struct Making {
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> ended{false};
  Pg made;
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, look_again, [this] { return ended.load(); });
  }
};

std::shared_ptr<Making> make_connections(const MeetingPlace& place, const std::string& prefix, const std::string& address, int me,
                                         int size) {
  auto making = std::make_shared<Making>();
  std::thread([=] {
    Pg made;
    try {
      c10d::TCPStoreOptions at;
      at.port = static_cast<std::uint16_t>(place.port);
      at.timeout = patience;
      auto store = c10::make_intrusive<c10d::TCPStore>(place.host, at);
      auto options = c10d::ProcessGroupGloo::Options::create(patience);
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
      options->threads = 1;
      made = std::make_shared<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(prefix, store), me, size, options);
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

struct MeetingStore::Implementation {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

MeetingStore::MeetingStore() : implementation_(std::make_unique<Implementation>()) {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  implementation_->store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
}
MeetingStore::~MeetingStore() = default;
int MeetingStore::port() const {
  return implementation_->store->getPort();
}

class Collectives::Implementation {
 public:
  explicit Implementation(std::string address) : address_(std::move(address)) {}

  void meet(const MeetingPlace& place, std::int64_t era, std::int64_t generation, const std::vector<std::int64_t>& members,
            int replica, int part);
  void set_members(const MeetingPlace& place, std::int64_t generation, const std::vector<std::int64_t>& members);
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  void interrupt();
  void clear();
  void ask_with(std::function<void(const SumQuestion&)> ask) { ask_ = std::move(ask); }
  std::shared_ptr<const Summable> finished(const SumQuestion& question);
  void answer(const SumQuestion& question, std::shared_ptr<const Summable> sum);

 private:
  struct Group {
    Pg connections;
    std::int64_t generation = -1;  ///< of the connections
    std::int64_t finished = 0;     ///< sums
    std::shared_ptr<const TensorSum> last;
    int lacking = 0;                        ///< members that have not finished what is asked for
    std::shared_ptr<const Summable> given;  ///< by one that has
    std::optional<SumQuestion> asked;
  };

  Group& group_of(const std::string& name);
  Pg connections_of(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock);
  bool sum_up(const Pg& connections, torch::Tensor& flat, std::int64_t generation);
  std::shared_ptr<const TensorSum> settle(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock);

  const std::string address_;
  std::function<void(const SumQuestion&)> ask_;
  std::mutex mutex_;
  std::condition_variable changed_;
  MeetingPlace place_;
  std::int64_t era_ = 0, generation_ = 0;
  std::vector<std::int64_t> members_;
  int replica_ = 0, part_ = 0;
  bool interrupted_ = false;
  std::map<std::string, std::unique_ptr<Group>> groups_;
};

void Collectives::Implementation::meet(const MeetingPlace& place, std::int64_t era, std::int64_t generation,
                                       const std::vector<std::int64_t>& members, int replica, int part) {
  const std::lock_guard lock(mutex_);
  place_ = place;
  replica_ = replica;
  part_ = part;
  if (era == era_ && generation < generation_) return;  // members have changed since this was said
  if (era != era_ || generation != generation_) {
    for (auto& [name, group] : groups_) abandon(std::move(group->connections));
    groups_.clear();
  }
  era_ = era;
  generation_ = generation;
  members_ = members;
}

Collectives::Implementation::Group& Collectives::Implementation::group_of(const std::string& name) {
  auto& slot = groups_[name];
  if (!slot) slot = std::make_unique<Group>();
  return *slot;
}

/// Connections between the members of this generation, made anew where they are older; null where nobody waits for them any more.
Pg Collectives::Implementation::connections_of(const std::string& name, Group& group, std::unique_lock<std::mutex>& lock) {
  if (group.connections && group.generation == generation_) return group.connections;
  abandon(std::move(group.connections));
  const std::int64_t generation = generation_;
  const int me = static_cast<int>(std::find(members_.begin(), members_.end(), replica_) - members_.begin());
  const std::string prefix = fmt::format("{}/{}/{}/{}", era_, generation, part_, name);
  const auto making = make_connections(place_, prefix, address_, me, static_cast<int>(members_.size()));
  while (!making->ended && !interrupted_ && generation == generation_) {
    lock.unlock();
    making->wait();
    lock.lock();
  }
  if (!making->ended || !making->made) return nullptr;
  group.connections = making->made;
  group.generation = generation;
  return group.connections;
}

/// Whether `flat` is the sum in the end.
bool Collectives::Implementation::sum_up(const Pg& connections, torch::Tensor& flat, std::int64_t generation) {
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
      if (interrupted_ || generation != generation_) return false;
    }
  } catch (const std::exception&) {
    return false;
  }
}

std::shared_ptr<const Summable> Collectives::Implementation::all_reduce(const GroupSpec& spec, int,
                                                                        std::unique_ptr<Summable> part) {
  const auto& mine = dynamic_cast<const TensorSum&>(*part);
  const std::string name = spec.number < 0 ? spec.name : spec.name + "/" + std::to_string(spec.number % slots);
  std::unique_lock lock(mutex_);
  for (;;) {
    if (interrupted_) throw Stopped{};
    Group& group = group_of(name);
    const std::int64_t generation = generation_;
    const int parts = static_cast<int>(members_.size());
    torch::Tensor flat = flatten(mine);
    bool done = parts == 1 || !flat.defined();
    if (!done) {
      if (const Pg connections = connections_of(name, group, lock)) {
        lock.unlock();
        done = sum_up(connections, flat, generation);
        lock.lock();
      }
    }
    if (done && generation == generation_) {
      ++group.finished;
      return group.last = unflatten(flat, mine, parts);
    }
    // Somebody has died: who is left is said by whoever watches; then finish with them.
    changed_.wait(lock, [&] { return interrupted_ || generation_ != generation; });
    if (interrupted_) throw Stopped{};
    if (auto settled = settle(name, group, lock)) return settled;
  }
}

/// The result of the sum under way, from a member that has finished it; null: none has.
std::shared_ptr<const TensorSum> Collectives::Implementation::settle(const std::string& name, Group& group,
                                                                     std::unique_lock<std::mutex>& lock) {
  while (!interrupted_) {
    const SumQuestion question{name, group.finished, generation_};
    group.asked = question;
    group.lacking = 0;
    group.given.reset();
    lock.unlock();
    if (ask_) ask_(question);
    lock.lock();
    const auto others = [&] { return static_cast<int>(members_.size()) - 1; };
    changed_.wait(lock,
                  [&] { return interrupted_ || generation_ != question.generation || group.given || group.lacking >= others(); });
    if (interrupted_ || generation_ != question.generation) continue;
    group.asked.reset();
    if (!group.given) return nullptr;
    ++group.finished;
    return group.last = std::dynamic_pointer_cast<const TensorSum>(group.given);
  }
  throw Stopped{};
}

void Collectives::Implementation::set_members(const MeetingPlace& place, std::int64_t generation,
                                              const std::vector<std::int64_t>& members) {
  const std::lock_guard lock(mutex_);
  if (generation <= generation_) return;
  place_ = place;
  generation_ = generation;
  members_ = members;
  changed_.notify_all();
}

std::shared_ptr<const Summable> Collectives::Implementation::finished(const SumQuestion& question) {
  const std::lock_guard lock(mutex_);
  const auto found = groups_.find(question.group);
  if (found == groups_.end() || found->second->finished != question.number + 1) return nullptr;
  return found->second->last;
}

void Collectives::Implementation::answer(const SumQuestion& question, std::shared_ptr<const Summable> sum) {
  const std::lock_guard lock(mutex_);
  const auto found = groups_.find(question.group);
  if (found == groups_.end() || !found->second->asked) return;
  Group& group = *found->second;
  if (group.asked->number != question.number || group.asked->generation != question.generation) return;
  if (sum) {
    group.given = std::move(sum);
  } else {
    ++group.lacking;
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

Collectives::Collectives(std::string address) : implementation_(std::make_unique<Implementation>(std::move(address))) {}
Collectives::~Collectives() = default;
void Collectives::meet(const MeetingPlace& place, std::int64_t era, std::int64_t generation,
                       const std::vector<std::int64_t>& members, int replica, int part) {
  implementation_->meet(place, era, generation, members, replica, part);
}
void Collectives::set_members(const MeetingPlace& place, std::int64_t generation, const std::vector<std::int64_t>& members) {
  implementation_->set_members(place, generation, members);
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
std::shared_ptr<const Summable> Collectives::finished(const SumQuestion& question) {
  return implementation_->finished(question);
}
void Collectives::answer(const SumQuestion& question, std::shared_ptr<const Summable> sum) {
  implementation_->answer(question, std::move(sum));
}

}  // namespace rubato
