#include "rubato/cluster/worker.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "cluster/group_options.h"
#include "cluster/process_link.h"
#include "cluster/rendezvous.h"
#include "cluster/transport_options.h"
#include "cluster/worker_figures.h"
#include "rubato/collectives/collectives.h"
#include "rubato/core/error.h"
#include "rubato/io/files.h"
#include "rubato/job/processes.h"
#include "rubato/membership/worker_machine.h"
#include "rubato/model/model.h"
#include "rubato/model/process.h"
#include "rubato/observe/step_tap.h"
#include "rubato/wire/packing.h"
#include "rubato/wire/tensor_sum.h"

namespace rubato {
namespace {

using namespace std::chrono_literals;
namespace ms = membership;

constexpr auto handing_over = 50ms;  // of what the transport has taken, to the system
constexpr auto at_rest = 100ms;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

// What a worker does stands in membership::WorkerMachine; here its actions and tasks are carried out.
//
// Thread rules
//  * `run` carries out the machine's tasks on the caller's thread; segments run there, with roles on threads of their own.
//  * The transport's thread hands what comes to the machine.
//  * `mutex_` guards the machine and what stands beside it. Actions are carried out under it: none blocks, and none that ends a
//    segment can meet the next one.
class Worker::Implementation final : public ProcessLink {
 public:
  Implementation(Plan plan, std::function<void(const std::string&)> note);
  ~Implementation() override { rendezvous_->close(); }
  JobEnd run();
  void request_stop() { stop_wanted_ = true; }
  bool stop_requested() const { return stop_wanted_; }
  void coordinator_has_ended(ExitCode code) { coordinators_code_ = static_cast<int>(code); }

  // Neighbours
  void listens(const std::string& channel) override;
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    return collectives_.all_reduce(group, rank, std::move(part));
  }

  // TransportListener, on the transport's thread
  void arrived(int peer, Frame frame) override;
  std::string admit(const Greeting&) override { return ""; }
  void welcomed(const Greeting& coordinator) override;
  void turned_away(const std::string& reason) override;
  void silent(int peer, bool is_silent) override;
  Packed details() override;
  Packed beat() override;

 private:
  void pass_time();
  void drop_what_others_hold();
  JobEnd leave(const ms::Exit& exit);
  void run_segment(const ms::Begin& begin, std::unique_lock<std::mutex>& lock);
  void prepare(const ms::Begin& begin, const Packed& state);
  void adopt(const Packed& weights, std::int64_t step);
  void join(std::int64_t step);
  void act();
  void report(const ms::Message& message, Packed content = {});
  void order_came(Packed content);
  void answer(const ms::Message& question, Packed content);
  void answer_sum(const ms::SumAsked& asked);
  void sum_came(const ms::SumAnswered& answered, const Packed& content);
  void interrupt();
  void halt(const ms::HaltSource& halt);
  void coordinator_listens(const Frame& frame);
  void set_away(bool away);
  void say_where();
  std::int64_t position();
  WorkerFigures figures() const;
  void pack_weights(Packed& packed) const;
  Packed result() const;
  std::string save_weights() const;

  Plan plan_;
  ProcessChoice choice_;
  std::function<void(const std::string&)> note_;
  const ms::GroupOptions group_;
  StepTap tap_;
  Job job_;
  int replica_;
  const ms::ProcessId me_;
  std::shared_ptr<RendezvousAtCoordinator> rendezvous_;
  Collectives collectives_;
  std::unique_ptr<ProcessRuntime> runtime_;
  std::atomic<bool> stop_wanted_{false};
  std::atomic<int> coordinators_code_{-1};  ///< once it has ended

  std::mutex mutex_;
  std::condition_variable changed_;
  ms::WorkerMachine machine_;
  Packed begin_state_;                    ///< what came with the order that the machine has taken
  Packed result_;                         ///< of the last segment
  bool running_ = false;                  ///< the job's sources are open
  bool away_ = false;                     ///< the coordinator
  std::map<std::string, int> places_;     ///< of channels, as others have said
  std::unique_ptr<Transport> transport_;  ///< last: its thread uses all of the above
};

Worker::Implementation::Implementation(Plan plan, std::function<void(const std::string&)> note)
    : plan_(std::move(plan)),
      choice_(*plan_.processes),
      note_(std::move(note)),
      group_(group_options(plan_)),
      job_(plan_.model, plan_.job(), tap_),
      replica_(plan_.place.replica),
      me_{getpid(), host_name(), choice_.incarnation},
      rendezvous_(std::make_shared<RendezvousAtCoordinator>([this](const ms::Message& message) { report(message); })),
      collectives_(choice_.address, rendezvous_),
      machine_({.policy = group_.policy, .sums = group_.sums, .patience = group_.patience, .process = me_}, seconds_now()) {
  drop_what_others_hold();
  unpack_to(plan_.stage.device);
  runtime_ = make_process_runtime(plan_.roles, *this, plan_.options.silence);
  transport_ = std::make_unique<Transport>(transport_options(plan_, choice_), *this);
  attach(*transport_, *runtime_);
  collectives_.ask_with([this](const ms::SumId& question) { report(ms::SumAsked{0, question}); });
  collectives_.complain_with([this](std::int64_t version) { report(ms::Broken{version}); });
}

/// A model may be too large for one process: the initial weights of blocks that belong to other stages are let go.
void Worker::Implementation::drop_what_others_hold() {
  if (!plan_.place.stage) return;
  const BlockRange here = stage_ranges(plan_.schedule.cuts, static_cast<int>(plan_.model.blocks.size()))
                              .at(static_cast<std::size_t>(*plan_.place.stage));
  for (int block = 0; block < static_cast<int>(plan_.model.blocks.size()); ++block) {
    if (block >= here.first && block < here.last) continue;
    for (torch::Tensor& tensor : plan_.model.blocks[static_cast<std::size_t>(block)].module.ptr()->parameters()) {
      auto* storage = tensor.storage().unsafeGetStorageImpl();
      storage->set_data_ptr_noswap(at::DataPtr(nullptr, tensor.device()));
      storage->set_nbytes(0);
    }
  }
}

// The main thread.

JobEnd Worker::Implementation::run() {
  transport_->start();
  std::unique_lock lock(mutex_);
  for (;;) {
    pass_time();
    const ms::WorkerTask task = machine_.task();
    if (const auto* exit = std::get_if<ms::Exit>(&task)) {
      lock.unlock();
      return leave(*exit);
    }
    if (const auto* forget = std::get_if<ms::ForgetTerm>(&task)) {
      lock.unlock();
      begin_term(forget->term);
      collectives_.clear();
      lock.lock();
      machine_.task_taken();
      act();
    } else if (const auto* segment = std::get_if<ms::RunSegment>(&task)) {
      run_segment(segment->begin, lock);
    } else {
      changed_.wait_for(lock, at_rest);
    }
  }
}

/// With the lock held.
void Worker::Implementation::pass_time() {
  if (stop_wanted_) machine_.stop_requested();
  if (coordinators_code_ >= 0) machine_.coordinator_ended(coordinators_code_);
  machine_.tick(seconds_now());
  act();
}

JobEnd Worker::Implementation::leave(const ms::Exit& exit) {
  if (exit.told) {
    transport_->flush(1);
    std::this_thread::sleep_for(handing_over);
    return {static_cast<ExitCode>(exit.code), "", exit.why};
  }
  std::string why = exit.why;
  if (exit.code == ms::exit_usage) throw UsageError(why);
  if (!exit.alone) {
    if (exit.code == ms::exit_interrupted) return {ExitCode::interrupted, "", why};
    throw DataError(
        fmt::format("{} at {}: is the job's coordinator running there, with the same key file?", why, choice_.coordinator));
  }
  const std::string saved = save_weights();
  why += saved.empty() ? "; this worker ends" : "; this worker's weights are in " + saved;
  if (exit.code == ms::exit_interrupted) return {ExitCode::interrupted, "", why};
  throw DataError(why);
}

/// The file; empty where there is no place for one.
std::string Worker::Implementation::save_weights() const {
  if (plan_.options.run_dir.empty() || plan_.place.parts > 1) return "";
  const auto file = std::filesystem::path(plan_.options.run_dir) / fmt::format("worker-{}.pt", choice_.rank);
  write_atomically(file, weights_file(job_.store(replica_)));
  return file.string();
}

/// With the lock held, which it lets go of meanwhile.
void Worker::Implementation::run_segment(const ms::Begin& begin, std::unique_lock<std::mutex>& lock) {
  const Packed state = std::exchange(begin_state_, {});
  set_term(begin.term);
  machine_.task_taken();
  lock.unlock();
  std::exception_ptr failure;
  bool interrupted = false;
  try {
    prepare(begin, state);
    lock.lock();
    running_ = true;
    machine_.opened();
    act();
    lock.unlock();
    if (begin.from == ms::Source::centre) join(begin.begin);
    runtime_->run(job_.roles());
    result_ = result();
  } catch (const Stopped&) {
    interrupted = true;
  } catch (...) {
    failure = std::current_exception();
  }
  if (!lock.owns_lock()) lock.lock();
  running_ = false;
  if (interrupted) {
    machine_.segment_interrupted();
  } else if (failure) {
    const auto [code, sentence] = failure_of(failure);
    machine_.segment_failed(static_cast<int>(code), fmt::format("worker {}: {}", choice_.rank, sentence));
  } else {
    machine_.segment_ended(job_.source(replica_).position(),
                           plan_.place.parts == 1 ? job_.digest_of_replica(replica_) : std::string());
  }
  act();
}

void Worker::Implementation::prepare(const ms::Begin& begin, const Packed& state) {
  for (const ms::Neighbour& neighbour : begin.neighbours) transport_->know(neighbour.rank, neighbour.endpoint);
  if (!begin.members.empty()) {
    collectives_.meet(begin.version, begin.members, replica_, plan_.place.stage.value_or(0));
  }
  if (begin.from == ms::Source::part) {
    Unpacker unpacker(state);
    job_.load_part(replica_, unpack_bytes(unpacker));
  } else if (begin.from == ms::Source::weights) {
    adopt(state, begin.begin);
  }
  job_.open(begin.begin, begin.end);
}

/// The weights of others, for a replica that begins with step `step`, as its learning rate does.
void Worker::Implementation::adopt(const Packed& packed, std::int64_t step) {
  Unpacker unpacker(packed);
  const std::vector<TensorSetPtr> sets = unpack_sets(unpacker);
  Bystander me;
  WeightStore& store = job_.store(replica_);
  if (static_cast<int>(sets.size()) != store.block_count()) throw PackError("weights of another model");
  for (int block = 0; block < store.block_count(); ++block) {
    const TensorSet& from = *sets[static_cast<std::size_t>(block)];
    if (!same_shapes(from.tensors, store.read(me, block).parameters->tensors)) throw PackError("weights of another model");
    store.update(
        me, block, "join",
        [&](const TensorSet&, std::vector<torch::Tensor>& next) {
          for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(from.tensors[i]);
        },
        step);
  }
}

/// Asks the centre until it answers.
void Worker::Implementation::join(std::int64_t step) {
  const Role joiner{.name = fmt::format("r{}/join", replica_), .run = [this, step](Context& me) {
                      for (;;) {
                        try {
                          return job_.coupling().replica_joins(me, job_.store(replica_), replica_, step);
                        } catch (const PeerLost&) {
                          me.sleep(0.1);
                        }
                      }
                    }};
  runtime_->run({joiner});
}

/// What travels with the report of a segment's end: figures, and the state or the weights, where the coordinator keeps them.
Packed Worker::Implementation::result() const {
  Packed content = figures().pack();
  if (group_.policy == ms::Policy::fixed) {
    pack_bytes(content, job_.save_part(replica_));
  } else if (plan_.place.keeps_replicas) {
    pack_weights(content);
  }
  return content;
}

// Actions, with the lock held.

void Worker::Implementation::act() {
  for (ms::WorkerAction& action : machine_.take_actions()) {
    if (const auto* made = std::get_if<ms::Report>(&action)) {
      report(made->message, made->with_state ? result_ : Packed());
    } else if (std::holds_alternative<ms::Interrupt>(action)) {
      interrupt();
    } else if (const auto* stop = std::get_if<ms::HaltSource>(&action)) {
      halt(*stop);
    } else if (const auto* members = std::get_if<ms::SetMembers>(&action)) {
      collectives_.set_members(members->members);
    } else if (const auto* away = std::get_if<ms::SetAway>(&action)) {
      set_away(away->away);
    } else if (const auto* fresh = std::get_if<ms::NewCoordinator>(&action)) {
      if (!fresh->first) note_("the coordinator has been started again");
      places_.clear();
    }
  }
  changed_.notify_all();
}

void Worker::Implementation::interrupt() {
  collectives_.interrupt();
  runtime_->interrupt();
  job_.source(replica_).end_at(0);
}

void Worker::Implementation::halt(const ms::HaltSource& halt) {
  switch (halt.how) {
    case ms::HaltHow::stop:
      return job_.stop();
    case ms::HaltHow::end_at:
      return job_.source(replica_).end_at(halt.step);
    case ms::HaltHow::hold:
      machine_.holding(job_.source(replica_).hold());
      act();
  }
}

/// Whether those who can go on without the coordinator have to.
void Worker::Implementation::set_away(bool away) {
  away_ = away;
  if (away) {
    runtime_->lost(coordinator_rank);
    runtime_->set_away(true);
    return;
  }
  bool any = false;
  for (const auto& [channel, where] : places_) {
    if (where != coordinator_rank) continue;
    runtime_->located(channel, where);
    any = true;
  }
  if (any) runtime_->set_away(false);
}

// The transport's thread.

void Worker::Implementation::report(const ms::Message& message, Packed content) {
  pack_message(content, message);
  transport_->send(coordinator_rank, {.kind = FrameKind::report, .about = "", .serial = term(), .content = std::move(content)});
}

void Worker::Implementation::listens(const std::string& channel) {
  if (!remember_own(channel)) return;
  transport_->send(coordinator_rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = {}});
}

void Worker::Implementation::say_where() {
  for (const std::string& channel : own_channels()) {
    transport_->send(coordinator_rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = {}});
  }
}

void Worker::Implementation::arrived(int peer, Frame frame) {
  if (carry(peer, frame) || peer != coordinator_rank) return;
  if (frame.kind == FrameKind::listens) {
    coordinator_listens(frame);
  } else if (frame.kind == FrameKind::order) {
    order_came(std::move(frame.content));
  } else if (frame.kind == FrameKind::beat) {
    const CountedSteps counted = CountedSteps::unpack(frame.content);
    const auto rank = static_cast<std::size_t>(choice_.rank);
    if (rank < counted.workers.size() && counted.workers[rank].process == me_.id) tap_.counted(counted.workers[rank].steps);
  }
}

void Worker::Implementation::order_came(Packed content) {
  const ms::Message message = unpack_message(content);
  if (const auto* found = std::get_if<ms::Found>(&message)) return rendezvous_->came(*found);
  if (const auto* asked = std::get_if<ms::SumAsked>(&message)) return answer_sum(*asked);
  if (const auto* answered = std::get_if<ms::SumAnswered>(&message)) return sum_came(*answered, content);
  if (std::holds_alternative<ms::GiveWeights>(message)) {
    {
      const std::lock_guard lock(mutex_);
      if (!machine_.has_weights()) return;
    }
    Packed weights;
    pack_weights(weights);
    return report(ms::Weights{me_, job_.source(replica_).position()}, std::move(weights));
  }
  const std::lock_guard lock(mutex_);
  const auto before = std::pair(machine_.term(), machine_.segment());
  machine_.received(message, seconds_now());
  const bool taken = std::holds_alternative<ms::Begin>(message) && std::pair(machine_.term(), machine_.segment()) != before;
  if (taken) begin_state_ = std::move(content);
  act();
}

void Worker::Implementation::coordinator_listens(const Frame& frame) {
  Unpacker unpacker(frame.content);
  const int where = static_cast<int>(unpacker.number());
  const std::lock_guard lock(mutex_);
  places_[frame.about] = where;
  if (where != choice_.rank) runtime_->located(frame.about, where);
  if (where == coordinator_rank) {
    away_ = false;
    runtime_->set_away(false);
  }
}

/// Asked by a member of a sum whether it was finished here, before one of us died.
void Worker::Implementation::answer_sum(const ms::SumAsked& asked) {
  const auto known = collectives_.asked(asked.sum);
  if (!known) return;
  ms::SumAnswered answer{asked.member, asked.sum, known->outcome, 0, 0};
  Packed content;
  if (const auto sum = std::dynamic_pointer_cast<const TensorSum>(known->sum)) {
    answer.parts = sum->parts();
    answer.weight = sum->weight;
    pack(content, sum->tensors);
  }
  report(answer, std::move(content));
}

void Worker::Implementation::sum_came(const ms::SumAnswered& answered, const Packed& content) {
  std::shared_ptr<TensorSum> sum;
  if (answered.outcome == ms::SumOutcome::finished) {
    Unpacker unpacker(content);
    sum = std::make_shared<TensorSum>();
    sum->set_parts(answered.parts);
    sum->weight = answered.weight;
    sum->tensors = unpack_tensors(unpacker);
  }
  collectives_.answer(answered.member, answered.sum, answered.outcome, std::move(sum));
}

void Worker::Implementation::pack_weights(Packed& packed) const {
  Bystander me;
  std::vector<TensorSetPtr> sets;
  for (int block = 0; block < job_.store(replica_).block_count(); ++block) {
    sets.push_back(job_.store(replica_).iterate(me, block));
  }
  pack(packed, sets);
}

/// A coordinator that has been started again learns from the hello what this worker is doing; it will say where its channels are.
void Worker::Implementation::welcomed(const Greeting& coordinator) {
  {
    const std::lock_guard lock(mutex_);
    machine_.welcomed({coordinator.pid, coordinator.host, coordinator.incarnation}, seconds_now());
    act();
  }
  say_where();
}

void Worker::Implementation::turned_away(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  machine_.turned_away(reason);
  act();
}

void Worker::Implementation::silent(int peer, bool is_silent) {
  if (peer != coordinator_rank) return;
  const std::lock_guard lock(mutex_);
  machine_.silent(is_silent, seconds_now());
  act();
}

/// Where the replica is; with the lock held.
std::int64_t Worker::Implementation::position() {
  return running_ ? job_.source(replica_).position() : 0;
}

Packed Worker::Implementation::details() {
  Packed packed;
  const std::lock_guard lock(mutex_);
  pack_message(packed, machine_.status(position()));
  return packed;
}

Packed Worker::Implementation::beat() {
  Packed packed = figures().pack();
  const std::lock_guard lock(mutex_);
  pass_time();
  pack_message(packed, machine_.status(position()));
  return packed;
}

WorkerFigures Worker::Implementation::figures() const {
  const MeterReading reading = tap_.reading();
  WorkerFigures figures{.samples = reading.samples,
                        .loss = reading.loss,
                        .waited = runtime_->waited(),
                        .traffic = transport_->traffic(),
                        .steps = tap_.pending()};
  for (int block = 0; block < job_.store(replica_).block_count(); ++block) {
    figures.staleness.push_back(job_.store(replica_).staleness(block));
  }
  return figures;
}

Worker::Worker(Plan plan, std::function<void(const std::string&)> note)
    : implementation_(std::make_unique<Implementation>(std::move(plan), std::move(note))) {}
Worker::~Worker() = default;
JobEnd Worker::run() {
  return implementation_->run();
}
void Worker::request_stop() {
  implementation_->request_stop();
}
void Worker::coordinator_has_ended(ExitCode code) {
  implementation_->coordinator_has_ended(code);
}
bool Worker::stop_requested() const {
  return implementation_->stop_requested();
}

}  // namespace rubato
