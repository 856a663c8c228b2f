#include <simgrid/s4u.hpp>

#include <exception>
#include <map>
#include <stdexcept>

#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"
#include "runtimes/group.h"
#include "runtimes/role_context.h"
#include "runtimes/waiting.h"

// SimGrid runs one actor at a time, in the order of virtual time, so nothing here needs a lock. Actors are threads
// (contexts/factory:thread): thread-local guards of libtorch then stay with their role.

namespace rubato {
namespace {

namespace s4u = simgrid::s4u;
constexpr double flops_per_second = 1e9;  // of every core; costs are given in seconds, so its value cancels

/// SimGrid allows one engine at a time and none of its parts may be added once it has run, so every simulator has its own.
std::unique_ptr<s4u::Engine> make_engine() {
  // What SimGrid would print of a deadlock is said in a sentence of our own.
  static char program[] = "rubato", factory[] = "--cfg=contexts/factory:thread", quiet[] = "--log=root.app:file:/dev/null";
  char* arguments[] = {program, factory, quiet, nullptr};
  int count = 3;
  return std::make_unique<s4u::Engine>(&count, arguments);
}

std::vector<s4u::Host*> make_hosts(const SimulatedPlatform& platform) {
  s4u::NetZone* zone = s4u::create_full_zone("platform");
  std::vector<s4u::Host*> hosts;
  for (int i = 0; i < platform.hosts; ++i) {
    hosts.push_back(
        zone->create_host("host-" + std::to_string(i), flops_per_second)->set_core_count(platform.cores_per_host)->seal());
  }
  for (int i = 0; i < platform.hosts; ++i) {
    for (int j = i + 1; j < platform.hosts; ++j) {
      s4u::Link* link = zone->create_link("link-" + std::to_string(i) + "-" + std::to_string(j), platform.link_bytes_per_second)
                            ->set_latency(platform.link_latency_seconds)
                            ->seal();
      zone->add_route(hosts[i]->get_netpoint(), hosts[j]->get_netpoint(), nullptr, nullptr, {s4u::LinkInRoute(link)}, true);
    }
  }
  zone->seal();
  return hosts;
}

/// A bounded queue: a mailbox for the transfer and a semaphore for the room that is left.
struct SimulatedChannel {
  s4u::Mailbox* mailbox;
  s4u::SemaphorePtr room;
};

/// A sum and where its members wait for the last one.
struct SimulatedSum {
  Sum sum;
  s4u::BarrierPtr all_there;
};

class Simulator final : public Runtime {
 public:
  Simulator(const SimulatedPlatform& platform, const RuntimeOptions& options)
      : options_(options),
        platform_(platform),
        engine_(make_engine()),
        hosts_(make_hosts(platform)),
        start_(s4u::Engine::get_clock()) {
    static const bool told = [] {  // once per process: SimGrid keeps callbacks for ever
      s4u::Engine::on_deadlock_cb([] { the_one_->deadlocked(); });
      return true;
    }();
    the_one_ = told ? this : nullptr;
  }

  void run(const std::vector<Role>& roles) override;
  double now() const override { return s4u::Engine::get_clock() - start_; }
  const char* kind() const override { return "simulator"; }

  SimulatedChannel& channel(const ChannelSpec& spec);
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  void wait_for_turn(FunctionRef<bool()> condition);
  void turn_ended();
  bool stopping() const { return failure_ != nullptr; }
  /// Who waits for what, for the sentence about a deadlock.
  std::map<std::string, std::string>& waits() { return waits_; }
  const RuntimeOptions& options() const { return options_; }

 private:
  void execute(const Role& role);
  /// SimGrid then ends the actors that are left.
  void deadlocked() { failure_ = std::make_exception_ptr(std::logic_error(deadlock_sentence(waits_))); }

  static Simulator* the_one_;
  RuntimeOptions options_;
  SimulatedPlatform platform_;
  std::unique_ptr<s4u::Engine> engine_;  // first made, last destroyed: everything else refers into it
  std::vector<s4u::Host*> hosts_;
  double start_;  // SimGrid's clock runs on from engine to engine
  std::map<std::string, SimulatedChannel> channels_;
  std::map<std::string, std::shared_ptr<SimulatedSum>> sums_;
  s4u::MutexPtr turns_ = s4u::Mutex::create();
  s4u::ConditionVariablePtr turn_has_ended_ = s4u::ConditionVariable::create();
  std::vector<s4u::ActorPtr> actors_;
  std::map<std::string, std::string> waits_;
  std::exception_ptr failure_;
};

Simulator* Simulator::the_one_ = nullptr;

class SimulatedContext final : public RoleContext {
 public:
  SimulatedContext(const std::string& name, Simulator& simulator)
      : RoleContext(name, simulator.options()), simulator_(simulator) {}

  void send(const ChannelSpec& spec, std::unique_ptr<Message> message) override {
    SimulatedChannel& channel = simulator_.channel(spec);
    tell_of_turns();
    const double begin = now();
    Event event{.kind = EventKind::send, .batch = message->batch(), .what = spec.name};
    await_turn(event);
    waiting("room in '" + spec.name + "'", [&] { channel.room->acquire(); });
    check_running();
    const std::size_t bytes = message->bytes();
    in_order(event, [] {});  // SimGrid serves roles in the order in which they ask, so what is asked next has this order too
    channel.mailbox->put_init(message.release(), bytes)->detach([](void* lost) { delete static_cast<Message*>(lost); });
    report(event, begin, now());
  }
  std::unique_ptr<Message> receive(const ChannelSpec& spec) override {
    SimulatedChannel& channel = simulator_.channel(spec);
    tell_of_turns();
    const double begin = now();
    Event event{.kind = EventKind::receive, .what = spec.name};
    await_turn(event);
    in_order(event, [] {});
    Message* found = nullptr;
    const s4u::CommPtr arriving = channel.mailbox->get_async(&found);
    waiting("a message in '" + spec.name + "'", [&] { arriving->wait(); });
    std::unique_ptr<Message> message(found);
    channel.room->release();
    check_running();
    event.batch = message->batch();
    report(event, begin, now());
    return message;
  }
  void compute(const char* what, std::int64_t batch, double seconds, FunctionRef<void()> work) override {
    tell_of_turns();
    check_running();
    if (const double delay = next_delay_ms(); delay > 0) sleep(delay * 1e-3);
    const double begin = now();
    work();  // at the start: what it read is as old as it would be on the device when the result is published
    if (seconds > 0) s4u::this_actor::execute(seconds * flops_per_second);
    report({.kind = EventKind::compute, .batch = batch, .what = what}, begin, now());
  }
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    tell_of_turns();
    const double begin = now();
    std::shared_ptr<const Summable> sum;
    waiting("the other members of '" + group.name + "'", [&] { sum = simulator_.all_reduce(group, rank, std::move(part)); });
    check_running();
    report({.kind = EventKind::all_reduce, .what = group.name}, begin, now());
    return sum;
  }
  void tell_of_turns() {
    if (std::exchange(turn_has_ended_, false)) simulator_.turn_ended();
  }
  void sleep(double seconds) override {
    tell_of_turns();
    s4u::this_actor::sleep_for(seconds);
    check_running();
  }
  double now() const override { return simulator_.now(); }

 protected:
  void wait_for_turn(Order& order, const Event& event) override {
    if (order.may_act(name(), event)) return;
    tell_of_turns();
    waiting("its turn: '" + order.next_to_act(event) + "' comes first",
            [&] { simulator_.wait_for_turn([&] { return order.may_act(name(), event); }); });
  }
  /// Others are told at the next verb: a turn may end under a lock, and whoever tells lets others run.
  void turn_ended() override { turn_has_ended_ = true; }

 private:
  void waiting(const std::string& what, FunctionRef<void()> block) {
    simulator_.waits()[name()] = what;
    block();
    simulator_.waits().erase(name());
  }
  void check_running() const {
    if (simulator_.stopping()) throw Stopped{};
  }
  Simulator& simulator_;
  bool turn_has_ended_ = false;
};

SimulatedChannel& Simulator::channel(const ChannelSpec& spec) {
  auto found = channels_.find(spec.name);
  if (found == channels_.end()) {
    auto* mailbox = s4u::Mailbox::by_name(spec.name);
    found = channels_.emplace(spec.name, SimulatedChannel{mailbox, s4u::Semaphore::create(spec.capacity)}).first;
  }
  return found->second;
}

/// Members meet, then the time of a ring passes: 2 (p - 1) messages, each a p-th of the data.
std::shared_ptr<const Summable> Simulator::all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) {
  auto& slot = sums_[group.name];
  if (!slot) slot = std::make_shared<SimulatedSum>(SimulatedSum{Sum(group.size), s4u::Barrier::create(group.size)});
  const std::shared_ptr<SimulatedSum> shared = slot;
  const double bytes = static_cast<double>(part->bytes()), members = group.size;
  shared->sum.put(rank, std::move(part));
  if (shared->sum.complete()) sums_.erase(group.name);
  shared->all_there->wait();
  const double rounds = 2 * (members - 1);
  const double seconds = rounds * (platform_.link_latency_seconds + bytes / members / platform_.link_bytes_per_second);
  if (seconds > 0) s4u::this_actor::sleep_for(seconds);
  return shared->sum.result();
}

void Simulator::wait_for_turn(FunctionRef<bool()> condition) {
  const std::unique_lock lock(*turns_);
  while (!condition()) turn_has_ended_->wait(turns_);
}

void Simulator::turn_ended() {
  turn_has_ended_->notify_all();
}

void Simulator::execute(const Role& role) {
  try {
    if (options_.on_thread_start) options_.on_thread_start();
    SimulatedContext me(role.name, *this);
    role.run(me);
    me.tell_of_turns();
  } catch (const Stopped&) {
    return;
  } catch (const simgrid::ForcefulKillException&) {
    throw;  // SimGrid unwinds the actor with it
  } catch (...) {
    if (!failure_) failure_ = std::current_exception();
    for (const s4u::ActorPtr& other : actors_) {
      if (other != s4u::Actor::self()) other->kill();
    }
  }
}

void Simulator::run(const std::vector<Role>& roles) {
  actors_.clear();
  for (const Role& role : roles) {
    auto* host = hosts_[static_cast<std::size_t>(role.device) % hosts_.size()];
    actors_.push_back(s4u::Actor::create(role.name, host, [this, &role] { execute(role); }));
  }
  waits_.clear();
  engine_->run();
  actors_.clear();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace

std::unique_ptr<Runtime> make_simulator(const SimulatedPlatform& platform, const RuntimeOptions& options) {
  return std::make_unique<Simulator>(platform, options);
}

}  // namespace rubato
