#include "rubato/train/worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "rubato/collectives/collectives.h"
#include "rubato/core/error.h"
#include "rubato/replica/packing.h"
#include "rubato/replica/tensor_sum.h"
#include "rubato/train/files.h"
#include "rubato/train/process.h"
#include "train/orders.h"
#include "train/post_options.h"
#include "train/process_link.h"
#include "train/step_tap.h"
#include "train/worker_report.h"

// Thread rules
//  * `run` executes orders one after the other on the caller's thread; segments run there, with roles on threads of their own.
//  * The post's thread answers at once what must not wait for a segment to end, and queues the rest. `mutex_` guards the queue, the
//    phase and what the home last said; it is never held while anything is called.

namespace rubato {
namespace {

using namespace std::chrono_literals;

/// The exception of a failed segment as an exit code and a sentence.
std::pair<ExitCode, std::string> failure_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::exception& error) {
    return {ExitCode::usage, plain_message(error)};
  }
}

}  // namespace

class Worker::Implementation final : public ProcessLink {
 public:
  Implementation(Plan plan, std::function<void(const std::string&)> note);
  int run();
  void request_stop() { stop_wanted_ = true; }
  bool stop_requested() const { return stop_wanted_; }

  // Neighbours
  void listens(const std::string& channel) override;
  std::shared_ptr<const Summable> all_reduce(const GroupSpec& group, int rank, std::unique_ptr<Summable> part) override {
    return collectives_.all_reduce(group, rank, std::move(part));
  }

  // PostListener, on the post's thread
  void arrived(int peer, Frame frame) override;
  std::string admit(const Greeting&) override { return ""; }
  void welcomed(const Greeting& home) override;
  void turned_away(const std::string& reason) override;
  void silent(int peer, bool is_silent) override;
  Packed details() override;
  Packed beat() override;

 private:
  struct Order {
    std::string what;
    std::int64_t serial;
    Packed content;
  };
  Order next_order();
  void wait_for_home();
  void execute(const BeginOrder& begin);
  void prepare(const BeginOrder& begin);
  void adopt(const Packed& weights);
  void join();
  void report_finished();
  void report(const char* about, Packed content, std::int64_t serial = 0);
  void home_listens(const Frame& frame);
  void order_came(Frame frame);
  void send_weights();
  void answer_sum(Unpacker& unpacker);
  void sum_came(Unpacker& unpacker);
  Packed weights() const;
  [[noreturn]] void give_up(const std::string& why);

  Plan plan_;
  ProcessChoice choice_;
  std::function<void(const std::string&)> note_;
  bool free_;
  StepTap tap_;
  Job job_;
  int replica_;
  Collectives collectives_;
  std::unique_ptr<ProcessRuntime> runtime_;
  std::atomic<bool> stop_wanted_{false};
  std::atomic<std::int64_t> step_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Order> orders_;
  WorkerPhase phase_ = WorkerPhase::idle;
  std::int64_t segment_ = 0;
  std::optional<std::string> turned_away_;
  std::optional<Greeting> home_;
  bool home_silent_ = false;
  std::chrono::steady_clock::time_point silent_since_;
  std::map<std::string, int> places_;  ///< of channels, as others have said
  Packed last_report_;                 ///< told again to a home that has been started again
  std::unique_ptr<Post> post_;         ///< last: its thread uses all of the above
};

Worker::Implementation::Implementation(Plan plan, std::function<void(const std::string&)> note)
    : plan_(std::move(plan)),
      choice_(*plan_.processes),
      note_(std::move(note)),
      free_(has_free_membership(plan_.options, plan_.place.parts)),
      job_(plan_.model, plan_.job(), tap_),
      replica_(plan_.place.replica),
      collectives_(choice_.address) {
  unpack_to(plan_.stage.device);
  runtime_ = make_process_runtime(plan_.roles, *this, plan_.options.silence);
  post_ = std::make_unique<Post>(post_options(plan_, choice_), *this);
  attach(*post_, *runtime_);
  collectives_.ask_with([this](const SumQuestion& question) {
    Packed ask;
    ask.numbers = {question.number, question.generation};
    ask.texts = {question.group};
    report(report::ask, std::move(ask));
  });
}

int Worker::Implementation::run() {
  post_->start();
  wait_for_home();
  for (;;) {
    Order order = next_order();
    if (order.what == order::begin) {
      set_era(order.serial);
      execute(BeginOrder::unpack(order.content));
    } else if (order.what == order::abort) {
      begin_era(order.serial);
      collectives_.clear();
      report(report::aborted, {}, order.serial);
    } else if (order.what == order::leave) {
      Unpacker unpacker(order.content);
      return static_cast<int>(unpacker.number());
    }
  }
}

void Worker::Implementation::wait_for_home() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::duration<double>(plan_.options.patience), [this] { return home_ || turned_away_; });
  if (turned_away_) throw UsageError("the job's home turns this process away: " + *turned_away_);
  if (!home_) {
    throw DataError(fmt::format("nobody answers at {} after {:g} s: is the home running there, with the same key file?",
                                choice_.home, plan_.options.patience));
  }
}

Worker::Implementation::Order Worker::Implementation::next_order() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (turned_away_) throw UsageError("the job's home turns this process away: " + *turned_away_);
    if (!orders_.empty()) {
      Order order = std::move(orders_.front());
      orders_.pop_front();
      return order;
    }
    const bool away = home_silent_ && std::chrono::steady_clock::now() - silent_since_ >
                                          std::chrono::duration<double>(plan_.options.patience);
    if (away) {
      lock.unlock();
      give_up(fmt::format("the home has been silent for {:g} s", plan_.options.patience));
    }
    changed_.wait_for(lock, 200ms);
  }
}

void Worker::Implementation::give_up(const std::string& why) {
  if (plan_.options.run_dir.empty() || plan_.place.parts > 1) throw DataError(why + "; this worker ends");
  const auto file = std::filesystem::path(plan_.options.run_dir) / fmt::format("worker-{}.pt", choice_.rank);
  write_atomically(file, weights_file(job_.store(replica_)));
  throw DataError(fmt::format("{}; this worker's weights are in {}", why, file.string()));
}

void Worker::Implementation::execute(const BeginOrder& begin) {
  try {
    prepare(begin);
    runtime_->run(job_.roles());
  } catch (const Stopped&) {
    const std::lock_guard lock(mutex_);
    phase_ = WorkerPhase::idle;
    return;
  } catch (...) {
    const auto [code, sentence] = failure_of(std::current_exception());
    Packed content;
    content.numbers = {static_cast<std::int64_t>(code)};
    content.texts = {fmt::format("worker {}: {}", choice_.rank, sentence)};
    report(report::failed, std::move(content));
    return;
  }
  report_finished();
}

void Worker::Implementation::prepare(const BeginOrder& begin) {
  {
    const std::lock_guard lock(mutex_);
    phase_ = WorkerPhase::running;
    segment_ = begin.segment;
  }
  step_ = begin.begin;
  if (begin.store_port > 0) {
    collectives_.meet({.host = begin.store_host, .port = static_cast<int>(begin.store_port)}, era(), begin.generation, begin.members,
                      replica_, plan_.place.stage.value_or(0));
  }
  if (begin.start == BeginOrder::part) {
    Unpacker unpacker(begin.state);
    job_.load_part(replica_, unpack_bytes(unpacker));
  } else if (begin.start == BeginOrder::weights) {
    adopt(begin.state);
  }
  job_.open(begin.begin, begin.end);
  if (begin.start == BeginOrder::join) join();
}

/// The weights of others, for a replica that comes later.
void Worker::Implementation::adopt(const Packed& packed) {
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
        from.clock);
  }
}

/// Asks the centre until it answers.
void Worker::Implementation::join() {
  const Role joiner{.name = fmt::format("r{}/join", replica_), .run = [this](Context& me) {
                      for (;;) {
                        try {
                          return job_.coupling().replica_joins(me, job_.store(replica_), replica_, step_);
                        } catch (const PeerLost&) {
                          me.sleep(0.1);
                        }
                      }
                    }};
  runtime_->run({joiner});
}

void Worker::Implementation::report_finished() {
  FinishedReport finished;
  finished.position = job_.source(replica_).position();
  step_ = finished.position;
  finished.beat = beat();
  if (plan_.place.parts == 1) finished.digest = job_.digest_of_replica(replica_);
  if (!free_) {
    pack_bytes(finished.state, job_.save_part(replica_));
  } else if (!plan_.place.keeps_replicas) {
    // the home has the centre
  } else {
    report(report::weights, weights(), finished.position);
  }
  Packed content;
  {
    const std::lock_guard lock(mutex_);
    phase_ = free_ ? WorkerPhase::finished : WorkerPhase::idle;
    finished.segment = segment_;
    content = last_report_ = finished.pack();
  }
  report(report::finished, std::move(content), era());
}

void Worker::Implementation::report(const char* about, Packed content, std::int64_t serial) {
  post_->send(home_rank, {.kind = FrameKind::report, .about = about, .serial = serial, .content = std::move(content)});
}

void Worker::Implementation::listens(const std::string& channel) {
  if (!remember_own(channel)) return;
  post_->send(home_rank, {.kind = FrameKind::listens, .about = channel, .serial = era(), .content = {}});
}

void Worker::Implementation::arrived(int peer, Frame frame) {
  if (carry(peer, frame)) return;
  if (peer != home_rank) return;
  if (frame.kind == FrameKind::listens) home_listens(frame);
  if (frame.kind == FrameKind::order) order_came(std::move(frame));
}

void Worker::Implementation::home_listens(const Frame& frame) {
  Unpacker unpacker(frame.content);
  const int where = static_cast<int>(unpacker.number());
  {
    const std::lock_guard lock(mutex_);
    places_[frame.about] = where;
  }
  if (where != choice_.rank) runtime_->located(frame.about, where);
  if (where == home_rank) runtime_->set_away(false);
}

void Worker::Implementation::order_came(Frame frame) {
  Unpacker unpacker(frame.content);
  const std::string& what = frame.about;
  if (what == order::meet) {
    const int rank = static_cast<int>(unpacker.number());
    return post_->know(rank, unpacker.text());
  }
  if (what == order::members) {
    const MeetingPlace place{unpacker.text(), static_cast<int>(unpacker.number())};
    const auto& numbers = frame.content.numbers;
    return collectives_.set_members(place, unpacker.number(), {numbers.begin() + 2, numbers.end()});
  }
  if (what == order::asked) return answer_sum(unpacker);
  if (what == order::sum) return sum_came(unpacker);
  if (what == order::weights) return send_weights();
  if (what == order::stop) return job_.stop();
  if (what == order::end_at) return job_.source(replica_).end_at(unpacker.number());
  if (what == order::hold) {
    Packed held;
    held.numbers = {job_.source(replica_).hold()};
    return report(report::held, std::move(held));
  }
  if (what == order::abort) {
    collectives_.interrupt();
    runtime_->interrupt();
    job_.source(replica_).end_at(0);
  }
  const std::lock_guard lock(mutex_);
  if (what == order::abort) orders_.clear();
  orders_.push_back({what, frame.serial, std::move(frame.content)});
  changed_.notify_all();
}

/// Asked by a member of a sum whether it was finished here, before one of us died.
void Worker::Implementation::answer_sum(Unpacker& unpacker) {
  const std::int64_t asker = unpacker.number();
  const SumQuestion question{unpacker.text(), unpacker.number(), unpacker.number()};
  const auto sum = std::dynamic_pointer_cast<const TensorSum>(collectives_.finished(question));
  Packed answer;
  answer.numbers = {asker, question.number, question.generation, sum ? 1 : 0};
  answer.texts = {question.group};
  if (sum) {
    answer.numbers.push_back(sum->parts());
    pack(answer, sum->tensors);
  }
  report(report::sum, std::move(answer));
}

void Worker::Implementation::sum_came(Unpacker& unpacker) {
  const SumQuestion question{unpacker.text(), unpacker.number(), unpacker.number()};
  std::shared_ptr<TensorSum> sum;
  if (unpacker.count(1) == 1) {
    sum = std::make_shared<TensorSum>();
    sum->set_parts(static_cast<int>(unpacker.number()));
    sum->tensors = unpack_tensors(unpacker);
  }
  collectives_.answer(question, std::move(sum));
}

Packed Worker::Implementation::weights() const {
  Bystander me;
  std::vector<TensorSetPtr> sets;
  for (int block = 0; block < job_.store(replica_).block_count(); ++block) {
    sets.push_back(job_.store(replica_).iterate(me, block));
  }
  Packed packed;
  pack(packed, sets);
  return packed;
}

void Worker::Implementation::send_weights() {
  report(report::weights, weights(), job_.source(replica_).position());
}

/// A home that has been started again learns from the hello what this worker is doing; it will say where its channels are.
void Worker::Implementation::welcomed(const Greeting& home) {
  bool is_new = false;
  Packed finished;
  {
    const std::lock_guard lock(mutex_);
    is_new = !home_ || home_->incarnation != home.incarnation || home_->pid != home.pid;
    if (is_new && home_) note_(fmt::format("the home has been started again (process {})", home.pid));
    home_ = home;
    home_silent_ = false;
    if (is_new) places_.clear();
    if (phase_ == WorkerPhase::finished) finished = last_report_;
    changed_.notify_all();
  }
  if (!is_new) return;
  for (const std::string& channel : own_channels()) {
    post_->send(home_rank, {.kind = FrameKind::listens, .about = channel, .serial = era(), .content = {}});
  }
  if (!finished.numbers.empty()) report(report::finished, std::move(finished), era());
}

void Worker::Implementation::turned_away(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  turned_away_ = reason;
  changed_.notify_all();
}

void Worker::Implementation::silent(int peer, bool is_silent) {
  if (peer != home_rank) return;
  std::map<std::string, int> places;
  {
    const std::lock_guard lock(mutex_);
    home_silent_ = is_silent;
    silent_since_ = std::chrono::steady_clock::now();
    places = places_;
  }
  if (!free_) return;
  if (is_silent) {
    runtime_->lost(home_rank);
    runtime_->set_away(true);
    return;
  }
  bool any = false;
  for (const auto& [channel, where] : places) {
    if (where != home_rank) continue;
    runtime_->located(channel, where);
    any = true;
  }
  if (any) runtime_->set_away(false);
}

Packed Worker::Implementation::details() {
  const std::lock_guard lock(mutex_);
  return WorkerDetails{.phase = phase_, .segment = segment_, .step = step_}.pack();
}

Packed Worker::Implementation::beat() {
  if (stop_wanted_) report(report::stop, {});
  const MeterReading reading = tap_.reading();
  bool running = false;
  {
    const std::lock_guard lock(mutex_);
    running = phase_ == WorkerPhase::running;
  }
  if (running) step_ = job_.source(replica_).position();
  WorkerBeat beat{.step = step_, .samples = reading.samples, .loss = reading.loss, .waited = runtime_->waited(), .traffic = post_->traffic()};
  for (int block = 0; block < job_.store(replica_).block_count(); ++block) {
    beat.staleness.push_back(job_.store(replica_).staleness(block));
  }
  Packed packed = beat.pack();
  tap_.drain(packed);
  return packed;
}

Worker::Worker(Plan plan, std::function<void(const std::string&)> note)
    : implementation_(std::make_unique<Implementation>(std::move(plan), std::move(note))) {}
Worker::~Worker() = default;
int Worker::run() {
  return implementation_->run();
}
void Worker::request_stop() {
  implementation_->request_stop();
}
bool Worker::stop_requested() const {
  return implementation_->stop_requested();
}

}  // namespace rubato
