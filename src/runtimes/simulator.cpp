#include <simgrid/s4u.hpp>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <optional>
#include <stdexcept>

#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"
#include "runtimes/group.h"
#include "runtimes/role_context.h"
#include "runtimes/simulated_faults.h"
#include "runtimes/simulated_platform.h"
#include "runtimes/simulated_units.h"
#include "runtimes/waiting.h"

// SimGrid runs one actor at a time, in the order of virtual time, so nothing here needs a lock. Actors share one thread
// (RuntimeOptions::one_thread), where no role may switch under a guard that libtorch keeps per thread, or are threads of their
// own. Whoever calls into SimGrid lets others run, so nothing does while it holds a lock of a store's or an order's.

namespace rubato {
namespace {

namespace s4u = simgrid::s4u;

/// From a host, and to a host; more wait. SimGrid looks through all messages under way whenever one arrives.
constexpr unsigned messages_under_way = 64;
/// A courier's stack, of the roles'.
constexpr int courier_stack_part = 3;

/// A message on its way.
struct Parcel {
  std::string sender;
  s4u::Host* from = nullptr;
  std::unique_ptr<Message> message;
};

/// What one sender has under way to one channel: parcels arrive in the order in which they were sent.
struct Connection {
  std::deque<Parcel> under_way;
  bool has_courier = false;
};

/// A bounded queue at the host of whoever receives from it first.
struct SimulatedChannel {
  std::string name;
  s4u::SemaphorePtr room, filled;
  s4u::Host* home = nullptr;
  std::vector<Parcel> homeless;  // sent before anybody wanted to receive
  std::map<std::string, Connection> connections;
  std::deque<std::unique_ptr<Message>> arrived;
};

/// A sum and where its members wait for the last one.
struct SimulatedSum {
  Sum sum;
  s4u::BarrierPtr all_there;
  std::vector<s4u::Host*> hosts;
};

class Simulator final : public Runtime {
 public:
  Simulator(const SimulatedPlatform& platform, const RuntimeOptions& options);
  ~Simulator() override { the_one_ = nullptr; }

  void run(const std::vector<Role>& roles, const UnitEvents& units) override;
  double now() const override { return s4u::Engine::get_clock() - start_; }
  const char* kind() const override { return "simulator"; }

  SimulatedChannel& channel(const ChannelSpec& spec);
  /// Hands `parcel` over to the network.
  void post(SimulatedChannel& channel, Parcel parcel);
  /// `host` receives from `channel`.
  void settle(SimulatedChannel& channel, s4u::Host* host);
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part);
  void wait_for_turn(const std::string& role, const Event& event);
  void turn_ended() { turn_has_ended_->notify_all(); }
  bool stopping() const { return failure_ != nullptr; }
  /// Who waits for what, for the sentence about a deadlock.
  std::map<std::string, std::string>& waits() { return waits_; }
  const RuntimeOptions& options() const { return options_; }
  SimulatedFaults& faults() { return faults_; }

 private:
  s4u::Host* host_of(const Role& role) const;
  SimulatedUnits::Hooks hooks();
  void execute(const Role& role);
  /// A failure of `work` ends the run.
  void guarded(FunctionRef<void()> work);
  void carry(SimulatedChannel& channel, Connection& connection);
  /// Takes the time of a message over the network.
  void transfer(s4u::Host* from, s4u::Host* to, std::size_t bytes);
  void arrive(SimulatedChannel& channel, Parcel parcel);
  /// SimGrid then ends the actors that are left.
  void deadlocked() { failure_ = std::make_exception_ptr(std::logic_error(deadlock_sentence(waits_))); }

  static Simulator* the_one_;
  RuntimeOptions options_;
  SimulatedPlatform platform_;
  std::unique_ptr<s4u::Engine> engine_;  // first made, last destroyed: everything else refers into it
  std::vector<s4u::Host*> hosts_;
  SimulatedFaults faults_;
  double start_;  // SimGrid's clock runs on from engine to engine
  std::map<std::string, SimulatedChannel> channels_;
  std::map<s4u::Host*, s4u::SemaphorePtr> leaving_, arriving_;
  std::map<std::string, std::shared_ptr<SimulatedSum>> sums_;
  s4u::MutexPtr turns_ = s4u::Mutex::create();
  s4u::ConditionVariablePtr turn_has_ended_ = s4u::ConditionVariable::create();
  std::vector<s4u::ActorPtr> actors_;
  std::optional<SimulatedUnits> units_;  // during a segment
  std::map<std::string, std::string> waits_;
  std::exception_ptr failure_;
};

Simulator* Simulator::the_one_ = nullptr;

Simulator::Simulator(const SimulatedPlatform& platform, const RuntimeOptions& options)
    : options_(options),
      platform_(platform),
      engine_(make_engine(options)),
      hosts_(make_hosts(*engine_, platform)),
      faults_(platform, hosts_, options.seed),
      start_(s4u::Engine::get_clock()) {
  static const bool told = [] {  // once per process: SimGrid keeps callbacks for ever
    s4u::Engine::on_deadlock_cb([] { the_one_->deadlocked(); });
    return true;
  }();
  the_one_ = told ? this : nullptr;
}

class SimulatedContext final : public RoleContext {
 public:
  SimulatedContext(const std::string& name, Simulator& simulator)
      : RoleContext(name, simulator.options()), simulator_(simulator), host_(s4u::this_actor::get_host()) {}

  void send(const ChannelSpec& spec, std::unique_ptr<Message> message) override {
    SimulatedChannel& channel = simulator_.channel(spec);
    tell_of_turns();
    const double begin = now();
    const Event event{.kind = EventKind::send, .batch = message->batch(), .what = spec.name};
    waiting("room in '" + spec.name + "'", [&] { channel.room->acquire(); });
    check_running();
    report(event, begin, now());
    simulator_.post(channel, {name(), host_, std::move(message)});
  }
  std::unique_ptr<Message> receive(const ChannelSpec& spec) override {
    SimulatedChannel& channel = simulator_.channel(spec);
    tell_of_turns();
    const double begin = now();
    Event event{.kind = EventKind::receive, .what = spec.name};
    simulator_.settle(channel, host_);
    await_turn(event);
    waiting("a message in '" + spec.name + "'", [&] { channel.filled->acquire(); });
    check_running();
    std::unique_ptr<Message> message;
    in_order(event, [&] {
      message = std::move(channel.arrived.front());
      channel.arrived.pop_front();
      event.batch = message->batch();
    });
    channel.room->release();
    report(event, begin, now());
    return message;
  }
  void compute(Computation what, std::int64_t batch, double seconds, FunctionRef<void()> work) override {
    tell_of_turns();
    check_running();
    if (const double delay = next_delay_ms(); delay > 0) sleep(delay * 1e-3);
    if (const double late = simulator_.faults().before(host_, what); late > 0) sleep(late);
    const double begin = now();
    work();  // at the start: what it read is as old as it would be on the device when the result is published
    if (simulator_.options().cost) seconds = simulator_.options().cost(name(), what, seconds);
    if (seconds > 0) s4u::this_actor::execute(seconds * flops_per_second);
    report({.kind = EventKind::compute, .batch = batch, .computation = what, .what = observed() ? to_string(what) : ""}, begin,
           now());
  }
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    tell_of_turns();
    const double begin = now();
    std::shared_ptr<const Summable> sum;
    waiting("the other members of '" + group.key() + "'", [&] { sum = simulator_.all_reduce(group, rank, std::move(part)); });
    check_running();
    report({.kind = EventKind::all_reduce, .what = group.key()}, begin, now());
    return sum;
  }
  void sleep(double seconds) override {
    tell_of_turns();
    s4u::this_actor::sleep_for(seconds);
    check_running();
  }
  double now() const override { return simulator_.now(); }
  void tell_of_turns() {
    if (std::exchange(turn_has_ended_, false)) simulator_.turn_ended();
  }

 protected:
  void wait_for_turn(Order& order, const Event& event) override {
    if (order.may_act(name(), event)) return;
    tell_of_turns();
    waiting("its turn: '" + order.next_to_act(event) + "' comes first", [&] { simulator_.wait_for_turn(name(), event); });
  }
  /// Others are told at the next verb: a turn may end under a lock, and whoever tells lets others run.
  void turn_ended() override { turn_has_ended_ = true; }

 private:
  void waiting(const std::string& what, FunctionRef<void()> block) {
    struct Scope {  // ends also when the role dies while it waits
      SimulatedContext& me;
      ~Scope() { me.simulator_.waits().erase(me.name()); }
    } scope{*this};
    simulator_.waits()[name()] = what;
    block();
  }
  void check_running() const {
    if (simulator_.stopping()) throw Stopped{};
  }
  Simulator& simulator_;
  s4u::Host* host_;
  bool turn_has_ended_ = false;
};

SimulatedChannel& Simulator::channel(const ChannelSpec& spec) {
  SimulatedChannel& found = channels_[spec.name];
  if (!found.room) {
    found.name = spec.name;
    found.room = s4u::Semaphore::create(static_cast<unsigned>(std::min<std::size_t>(spec.capacity, 1u << 30)));
    found.filled = s4u::Semaphore::create(0);
  }
  return found;
}

void Simulator::settle(SimulatedChannel& channel, s4u::Host* host) {
  if (channel.home != nullptr) return;
  channel.home = host;
  for (Parcel& parcel : std::exchange(channel.homeless, {})) post(channel, std::move(parcel));
}

void Simulator::post(SimulatedChannel& channel, Parcel parcel) {
  if (channel.home == nullptr) {
    channel.homeless.push_back(std::move(parcel));
    return;
  }
  Connection& connection = channel.connections[parcel.sender];
  s4u::Host* const from = parcel.from;
  connection.under_way.push_back(std::move(parcel));
  if (connection.has_courier) return;
  connection.has_courier = true;
  const bool turns = options_.order != nullptr && options_.order->waits();
  if (from == channel.home && !turns) {
    carry(channel, connection);  // takes no time, so the sender does it itself
  } else {
    s4u::ActorPtr courier = s4u::Actor::init("courier", from);
    if (options_.one_thread) courier->set_stacksize(static_cast<unsigned>(options_.stack_kib / courier_stack_part));
    courier->start([this, &channel, &connection] { carry(channel, connection); });
  }
}

void Simulator::carry(SimulatedChannel& channel, Connection& connection) {
  while (!connection.under_way.empty() && failure_ == nullptr) {
    Parcel parcel = std::move(connection.under_way.front());
    connection.under_way.pop_front();
    if (parcel.from != channel.home) {
      for (double again = faults_.time_out(parcel.from, channel.home); again > 0;
           again = faults_.time_out(parcel.from, channel.home)) {
        s4u::this_actor::sleep_for(again);
      }
      transfer(parcel.from, channel.home, parcel.message->bytes());
    }
    arrive(channel, std::move(parcel));
  }
  connection.has_courier = false;
}

void Simulator::transfer(s4u::Host* from, s4u::Host* to, std::size_t bytes) {
  s4u::SemaphorePtr &out = leaving_[from], &in = arriving_[to];
  if (!out) out = s4u::Semaphore::create(messages_under_way);
  if (!in) in = s4u::Semaphore::create(messages_under_way);
  out->acquire();
  in->acquire();  // whoever has both gets through, so nobody waits for ever
  s4u::Comm::sendto(from, to, static_cast<std::uint64_t>(std::max<std::size_t>(1, bytes)));
  in->release();
  out->release();
}

void Simulator::arrive(SimulatedChannel& channel, Parcel parcel) {
  const std::string sender = parcel.sender;
  Event event{.kind = EventKind::send, .batch = parcel.message->batch(), .what = channel.name};
  const auto enter = [&] { channel.arrived.push_back(std::move(parcel.message)); };
  if (options_.order == nullptr) {
    enter();
  } else {
    wait_for_turn(sender, event);
    options_.order->act(sender, event, enter);
    turn_ended();
  }
  channel.filled->release();
}

/// Members meet, then the time of a ring passes: 2 (p - 1) messages, each a p-th of the data, over the slowest of its links.
std::shared_ptr<const Summable> Simulator::all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) {
  auto& slot = sums_[group.key()];
  if (!slot) {
    slot = std::make_shared<SimulatedSum>(
        SimulatedSum{Sum(group.size), s4u::Barrier::create(group.size), std::vector<s4u::Host*>(group.size)});
  }
  const std::shared_ptr<SimulatedSum> shared = slot;
  const double bytes = static_cast<double>(part->bytes());
  shared->hosts[static_cast<std::size_t>(rank)] = s4u::this_actor::get_host();
  shared->sum.put(rank, std::move(part));
  if (shared->sum.complete()) sums_.erase(group.key());
  shared->all_there->wait();
  if (const double seconds = ring_seconds(shared->hosts, bytes); seconds > 0) s4u::this_actor::sleep_for(seconds);
  return shared->sum.result();
}

void Simulator::wait_for_turn(const std::string& role, const Event& event) {
  if (!options_.order->waits()) return;
  const std::unique_lock lock(*turns_);
  while (failure_ == nullptr && !options_.order->may_act(role, event)) turn_has_ended_->wait(turns_);
}

void Simulator::execute(const Role& role) {
  guarded([&] {
    if (options_.on_thread_start && !options_.one_thread) options_.on_thread_start();
    SimulatedContext me(role.name, *this);
    role.run(me);
    me.tell_of_turns();
    units_->ended(role);
  });
}

void Simulator::guarded(FunctionRef<void()> work) {
  std::exception_ptr failure;
  try {
    work();
  } catch (const Stopped&) {
  } catch (const simgrid::ForcefulKillException&) {
    throw;  // SimGrid unwinds the actor with it
  } catch (...) {
    failure = std::current_exception();
  }
  if (!failure) return;
  if (!failure_) failure_ = failure;
  for (const s4u::ActorPtr& other : actors_) {  // outside the handler: others run meanwhile
    if (other != s4u::Actor::self()) other->kill();
  }
}

/// Neighbouring cores belong to one host.
s4u::Host* Simulator::host_of(const Role& role) const {
  return hosts_[static_cast<std::size_t>(role.device / platform_.cores_per_host) % hosts_.size()];
}

SimulatedUnits::Hooks Simulator::hooks() {
  return {
      .start =
          [this](const Role& role) {
            return actors_.emplace_back(s4u::Actor::create(role.name, host_of(role), [this, &role] { execute(role); }));
          },
      .host = [this](const Role& role) { return static_cast<int>(std::ranges::find(hosts_, host_of(role)) - hosts_.begin()); },
      .place = [this](const Role& role) { return host_of(role); },
      .now = [this] { return now(); },
      .call =
          [this](const std::string& name, const std::function<void(Context&)>& what) {
            SimulatedContext me(name, *this);
            what(me);
          },
      .guarded = [this](const std::function<void()>& work) { guarded(work); }};
}

void Simulator::run(const std::vector<Role>& roles, const UnitEvents& events) {
  waits_.clear();
  units_.emplace(roles, platform_.absences, events, hooks());
  units_->begin();
  engine_->run();
  actors_.clear();
  units_.reset();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace

std::unique_ptr<Runtime> make_simulator(const SimulatedPlatform& platform, const RuntimeOptions& options) {
  return std::make_unique<Simulator>(platform, options);
}

}  // namespace rubato
