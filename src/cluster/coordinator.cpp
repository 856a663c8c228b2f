#include "cluster/coordinator.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "cluster/group_options.h"
#include "cluster/transport_options.h"
#include "rubato/cluster/coordinator.h"
#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/io/files.h"
#include "rubato/job/processes.h"
#include "rubato/model/model.h"
#include "rubato/monitor/metrics_page.h"
#include "rubato/wire/packing.h"

namespace rubato {
namespace {

using namespace std::chrono_literals;
namespace ms = membership;

constexpr auto between_ticks = 50ms;

void add(StalenessCount& sum, const StalenessCount& more) {
  sum.updates += more.updates;
  sum.sum += more.sum;
  sum.max = std::max(sum.max, more.max);
}

/// The mean of what several workers sent, block by block.
std::vector<std::vector<torch::Tensor>> mean_of(const std::vector<std::vector<TensorSetPtr>>& all) {
  torch::NoGradGuard no_grad;
  std::vector<std::vector<torch::Tensor>> mean;
  for (std::size_t block = 0; block < all.front().size(); ++block) {
    auto& tensors = mean.emplace_back();
    for (std::size_t i = 0; i < all.front()[block]->tensors.size(); ++i) {
      torch::Tensor sum = all.front()[block]->tensors[i].clone();
      for (std::size_t w = 1; w < all.size(); ++w) sum.add_(all[w].at(block)->tensors.at(i));
      tensors.push_back(sum.div_(static_cast<double>(all.size())));
    }
  }
  return mean;
}

ms::Status status_in(const Greeting& greeting) {
  Packed details = greeting.details;
  const auto message = unpack_message(details);
  const auto* status = std::get_if<ms::Status>(&message);
  if (status == nullptr) throw PackError("a greeting without a status");
  return *status;
}

/// Rank and incarnation of processes that the launcher has given up; nobody where its file is not there or makes no sense.
std::vector<std::pair<int, int>> gone_by_the_launcher(const std::filesystem::path& job_file) {
  std::vector<std::pair<int, int>> gone;
  try {
    if (!std::filesystem::exists(job_file)) return {};
    const auto json = nlohmann::json::parse(read_file(job_file));
    for (const auto& process : json.at("processes")) {
      if (!process.at("exited").is_null()) gone.emplace_back(process.at("rank"), process.at("incarnation"));
    }
  } catch (const std::exception&) {
    return {};
  }
  return gone;
}

}  // namespace

Coordinator::Coordinator(const Plan& plan, Job& job, StepMeter& meter, std::function<void(const std::string&)> note)
    : plan_(plan),
      job_(job),
      meter_(meter),
      note_(std::move(note)),
      group_(group_options(plan)),
      machine_(group_),
      workers_(static_cast<std::size_t>(plan.processes->world)) {
  unpack_to(plan.stage.device);
  RuntimeOptions roles = plan_.roles;
  roles.processors = 0;  // the centre must not wait for a turn
  runtime_ = make_process_runtime(roles, *this, plan_.options.silence);
  transport_ = std::make_unique<Transport>(transport_options(plan, *plan.processes), *this);
  attach(*transport_, *runtime_);
  set_term(machine_.term());
}

void Coordinator::serve_metrics() {
  if (plan_.options.metrics.empty()) return;
  const auto [address, port] = address_and_port(plan_.options.metrics);
  page_ = std::make_unique<MetricsPage>(address, port, [this] {
    const std::lock_guard lock(mutex_);
    return prometheus_text(status());
  });
}

Coordinator::~Coordinator() {
  conductor_ = {};
  if (centre_.joinable()) runtime_->interrupt();
  join_centre();
  status_writer_ = {};
  page_.reset();
  transport_.reset();
}

// The trainer's thread.

std::int64_t Coordinator::run(std::int64_t begin, std::int64_t end) {
  open();
  if (group_.policy == ms::Policy::free) job_.open(begin, end);  // the evaluation weights have to be found anew
  std::unique_lock lock(mutex_);
  machine_.run_segment(begin, end, now());
  for (;;) {
    pump(lock);
    const ms::Task task = machine_.task();
    if (task.index() == 0) {
      changed_.wait_for(lock, between_ticks);
      continue;
    }
    lock.unlock();
    carry_out(task);
    lock.lock();
    machine_.task_done(now());
    act();
    if (const auto* ended = std::get_if<ms::SegmentEnded>(&task)) {
      stop_asked_ = ended->stopped;
      return ended->position;
    }
    if (const auto* failed = std::get_if<ms::GroupFailed>(&task)) {
      const auto code = static_cast<ExitCode>(failed->code);
      if (code == ExitCode::diverged) throw DivergedError(failed->sentence);
      throw Error(code, failed->sentence);
    }
  }
}

/// Lets time pass for the machine. With the lock held, which it lets go of meanwhile.
void Coordinator::pump(std::unique_lock<std::mutex>& lock) {
  look_at_launcher(lock);
  if (stop_wanted_) machine_.stop(now());
  machine_.tick(now());
  act();
  carry_out_deferred(lock);
}

void Coordinator::carry_out(const ms::Task& task) {
  if (const auto* segment = std::get_if<ms::OpenSegment>(&task)) {
    job_.open(segment->begin, segment->end);
    start_centre();
  } else if (const auto* back = std::get_if<ms::GoBack>(&task)) {
    runtime_->interrupt();
    join_centre();
    begin_term(back->term);
  } else if (const auto* rebuild = std::get_if<ms::Rebuild>(&task)) {
    if (group_.incarnation > 0) rebuild_centre(rebuild->ranks);
    if (group_.centre) start_centre();
    conductor_ = std::jthread([this](const std::stop_token& stop) {
      std::condition_variable_any clock;  // nobody's word but the time: who pumps and is woken by who pumps would never rest
      std::unique_lock lock(mutex_);
      while (!stop.stop_requested()) {
        pump(lock);
        clock.wait_for(lock, stop, 2 * between_ticks, [] { return false; });
      }
    });
  } else if (const auto* ended = std::get_if<ms::SegmentEnded>(&task)) {
    if (group_.policy == ms::Policy::free) {
      if (!group_.centre) gather(*ended);
    } else {
      join_centre();
      keep_states(*ended);
    }
  }
}

/// After the coordinator has been started again: survivors know more than the last checkpoint. An elastic centre estimates their
/// mean.
void Coordinator::rebuild_centre(const std::vector<int>& ranks) {
  std::vector<std::vector<TensorSetPtr>> weights;
  {
    const std::lock_guard lock(mutex_);
    rebuilt_from_ = "the checkpoint";
    for (const int rank : ranks) {
      Unpacker unpacker(worker(rank).content);
      std::vector<TensorSetPtr> sets = unpack_sets(unpacker);
      if (sets.size() == plan_.model.blocks.size()) weights.push_back(std::move(sets));
    }
  }
  if (weights.empty()) return;
  const auto mean = mean_of(weights);
  Bystander me;
  WeightStore& centre = job_.coupling().evaluation_weights();
  for (int block = 0; block < centre.block_count(); ++block) {
    const auto& tensors = mean.at(static_cast<std::size_t>(block));
    centre.update(me, block, "rebuilt", [&](const TensorSet&, std::vector<torch::Tensor>& next) {
      for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(tensors.at(i));
    });
  }
  const std::lock_guard lock(mutex_);
  rebuilt_from_ = fmt::format("weights of {} survivor{}", weights.size(), weights.size() == 1 ? "" : "s");
  note_("the centre was made again from the " + rebuilt_from_);
}

/// What workers have sent at the end of the segment is what the checkpoint will hold.
void Coordinator::keep_states(const ms::SegmentEnded& ended) {
  std::vector<std::pair<int, std::string>> parts;
  {
    const std::lock_guard lock(mutex_);
    for (const int rank : ended.kept) {
      Unpacker unpacker(worker(rank).content);
      parts.emplace_back(rank, unpack_bytes(unpacker));
      worker(rank).content = {};
    }
  }
  for (const auto& [rank, part] : parts) job_.load_part(replica_of(rank), part);
  if (parts.empty() || plan_.place.parts > 1) return;
  // Whoever comes back begins as another is.
  for (const int rank : ended.absent) job_.load_part(replica_of(rank), parts.front().second);
}

/// Without a centre the run is about the mean over replicas: brings the stores that are kept here up to date.
void Coordinator::gather(const ms::SegmentEnded& ended) {
  std::vector<std::vector<TensorSetPtr>> known;
  {
    const std::lock_guard lock(mutex_);
    for (const int rank : ended.kept) {
      Unpacker unpacker(worker(rank).content);
      known.push_back(unpack_sets(unpacker));
    }
  }
  if (known.empty()) return;
  const auto mean = mean_of(known);
  Bystander me;
  for (int replica = 0; replica < job_.replicas(); ++replica) {
    WeightStore& store = job_.store(replica);
    for (int block = 0; block < store.block_count(); ++block) {
      store.update(
          me, block, "gathered",
          [&](const TensorSet&, std::vector<torch::Tensor>& next) {
            for (std::size_t i = 0; i < next.size(); ++i) next[i].copy_(mean.at(static_cast<std::size_t>(block)).at(i));
          },
          ended.position);
    }
  }
}

/// Runs the centre's roles on a thread of their own, if there are any.
void Coordinator::start_centre() {
  std::vector<Role> roles = job_.roles();
  if (roles.empty()) return;
  centre_ = std::jthread([this, roles = std::move(roles)] {
    try {
      runtime_->run(roles);
    } catch (const Stopped&) {
    } catch (...) {
      const auto [code, sentence] = failure_of(std::current_exception());
      const std::lock_guard lock(mutex_);
      machine_.fail(static_cast<int>(code), sentence);
      changed_.notify_all();
    }
  });
}

void Coordinator::join_centre() {
  if (centre_.joinable()) centre_.join();
}

void Coordinator::finish(const JobEnd& end) {
  const bool was_open = status_writer_.joinable();
  open();  // it may have failed, or have nothing left to do, before anybody was let in
  tell_the_end(end, !was_open || (end.code != ExitCode::ok && end.code != ExitCode::interrupted));
  status_writer_ = {};
  {
    const std::lock_guard lock(mutex_);
    state_ = end.status;
  }
  write_status();
}

void Coordinator::refuse(const JobEnd& end) {
  transport_->start();
  tell_the_end(end, true);
}

void Coordinator::tell_the_end(const JobEnd& end, bool others_come) {
  std::unique_lock lock(mutex_);
  machine_.job_over(static_cast<int>(end.code), end.why, others_come, now());
  act();
  while (!std::holds_alternative<ms::AllTold>(machine_.task())) {
    changed_.wait_for(lock, between_ticks);
    pump(lock);
  }
}

void Coordinator::tell(double train_loss, std::optional<double> test_accuracy) {
  const std::lock_guard lock(mutex_);
  train_loss_ = train_loss;
  test_accuracy_ = test_accuracy;
}

StalenessCount Coordinator::staleness(int block) const {
  if (group_.policy == ms::Policy::fixed) return job_.staleness(block);
  const std::lock_guard lock(mutex_);
  return staleness_of(block);
}

StalenessCount Coordinator::staleness_of(int block) const {
  const auto index = static_cast<std::size_t>(block);
  StalenessCount sum;
  if (index < staleness_of_the_dead_.size()) add(sum, staleness_of_the_dead_[index]);
  for (const WorkerRecord& is : workers_) {
    if (index < is.figures.staleness.size()) add(sum, is.figures.staleness[index]);
  }
  return sum;
}

std::string Coordinator::digest() const {
  if (group_.policy == ms::Policy::fixed) return job_.digest();
  std::vector<std::string> digests;
  {
    const std::lock_guard lock(mutex_);
    for (const ms::Member& member : machine_.members()) digests.push_back(member.digest);
  }
  // Of the workers' weights; while one has not said what its are, of the evaluation weights.
  const bool complete = std::none_of(digests.begin(), digests.end(), [](const std::string& one) { return one.empty(); });
  return complete ? Job::digest_of(digests) : job_.evaluation_weights().digest();
}

// Actions, with the lock held.

/// `incoming`: the content of the message that has just been handled.
void Coordinator::act(Packed* incoming) {
  for (ms::Action& action : machine_.take_actions()) {
    if (auto* send = std::get_if<ms::Send>(&action)) {
      this->send(*send, incoming);
    } else if (const auto* keep = std::get_if<ms::Keep>(&action)) {
      if (incoming != nullptr) worker(keep->rank).content = std::move(*incoming);
    } else if (const auto* lost = std::get_if<ms::Lost>(&action)) {
      this->lost(lost->rank);
    } else if (const auto* expect = std::get_if<ms::Expect>(&action)) {
      worker(expect->rank) = {};
      runtime_->expect(expect->rank);
    } else if (const auto* farewell = std::get_if<ms::Farewell>(&action)) {
      const std::string requests = job_.coupling().requests();
      if (requests.empty()) continue;
      runtime_->deliver(farewell->rank, requests, -1, Coupling::farewell(replica_of(farewell->rank)));
    } else if (const auto* note = std::get_if<ms::Note>(&action)) {
      note_(note->sentence);
    }
  }
  if (machine_.task().index() != 0) changed_.notify_all();
}

void Coordinator::send(const ms::Send& send, const Packed* incoming) {
  switch (send.attachment) {
    case ms::Attachment::none:
      return post_message(send.rank, send.message, {});
    case ms::Attachment::same:
      return post_message(send.rank, send.message, incoming == nullptr ? Packed() : *incoming);
    case ms::Attachment::weights:
      return post_message(send.rank, send.message, worker(send.of).content);
    case ms::Attachment::part:
    case ms::Attachment::kept:
      deferred_.push_back(send);
  }
}

void Coordinator::post_message(int rank, const ms::Message& message, Packed content) {
  const auto* begin = std::get_if<ms::Begin>(&message);
  pack_message(content, message);
  transport_->send(
      rank, {.kind = FrameKind::order, .about = "", .serial = begin == nullptr ? 0 : begin->term, .content = std::move(content)});
}

/// Sends what takes time to be packed, if it is still wanted then.
void Coordinator::carry_out_deferred(std::unique_lock<std::mutex>& lock) {
  for (const ms::Send& send : std::exchange(deferred_, {})) {
    lock.unlock();
    Packed content = kept(send);
    lock.lock();
    if (machine_.still_wanted(send)) post_message(send.rank, send.message, std::move(content));
  }
}

Packed Coordinator::kept(const ms::Send& send) const {
  const int replica = replica_of(send.rank);
  Packed packed;
  if (send.attachment == ms::Attachment::part) {
    pack_bytes(packed, job_.save_part(replica));
    return packed;
  }
  std::vector<TensorSetPtr> sets;
  for (int block = 0; block < job_.store(replica).block_count(); ++block) {
    sets.push_back(job_.store(replica).result(block).parameters);
  }
  pack(packed, sets);
  return packed;
}

void Coordinator::lost(int rank) {
  std::vector<StalenessCount>& counts = worker(rank).figures.staleness;
  staleness_of_the_dead_.resize(std::max(staleness_of_the_dead_.size(), counts.size()));
  for (std::size_t block = 0; block < counts.size(); ++block) add(staleness_of_the_dead_[block], counts[block]);
  counts.clear();
  std::erase_if(places_, [rank](const auto& place) { return place.second == rank; });
  runtime_->lost(rank);
}

/// What the launcher says about processes that will not be started again; once in a second.
void Coordinator::look_at_launcher(std::unique_lock<std::mutex>& lock) {
  if (Clock::now() - last_look_ < 1s) return;
  last_look_ = Clock::now();
  lock.unlock();  // a disk may take its time
  const auto gone = gone_by_the_launcher(std::filesystem::path(plan_.options.run_dir) / "job.json");
  lock.lock();
  for (const auto& [rank, incarnation] : gone) machine_.gone(rank, incarnation, now());
}

// The transport's thread.

void Coordinator::arrived(int peer, Frame frame) {
  if (peer < 0) return;
  switch (frame.kind) {
    case FrameKind::beat:
      return beat_came(peer, frame);
    case FrameKind::listens:
      return worker_listens(peer, frame.about);
    case FrameKind::report:
      return report_came(peer, frame);
    default:
      carry(peer, frame);
  }
}

void Coordinator::report_came(int peer, Frame& frame) {
  const ms::Message message = unpack_message(frame.content);
  const bool finished = std::holds_alternative<ms::Finished>(message);
  if (finished) count(peer, WorkerFigures::take(frame.content));
  const std::lock_guard lock(mutex_);
  machine_.received(peer, message, now());
  act(&frame.content);
}

void Coordinator::beat_came(int peer, Frame& frame) {
  const ms::Message status = unpack_message(frame.content);
  count(peer, WorkerFigures::take(frame.content));
  const std::lock_guard lock(mutex_);
  machine_.received(peer, status, now());
  act();
}

/// What the meter says of the worker's steps: a loss may have diverged. Each counts once.
void Coordinator::count(int rank, const WorkerFigures& figures) {
  std::vector<StepReport> fresh;
  {
    const std::lock_guard lock(mutex_);
    WorkerRecord& is = worker(rank);
    if (!is.counted) is.counted = figures.steps.first;
    const std::int64_t known = std::max<std::int64_t>(0, *is.counted - figures.steps.first);
    for (auto i = static_cast<std::size_t>(known); i < figures.steps.steps.size(); ++i) fresh.push_back(figures.steps.steps[i]);
    is.counted = *is.counted + static_cast<std::int64_t>(fresh.size());
    is.figures = figures;
    is.figures.steps = {};
    is.measure_rate();
  }
  try {
    for (StepReport step : fresh) {
      step.time = now();
      meter_.step(step);
    }
  } catch (...) {
    const auto [code, sentence] = failure_of(std::current_exception());
    const std::lock_guard lock(mutex_);
    machine_.fail(static_cast<int>(code), sentence);
  }
}

Packed Coordinator::beat() {
  const std::lock_guard lock(mutex_);
  CountedSteps counted;
  for (std::size_t rank = 0; rank < workers_.size(); ++rank) {
    counted.workers.push_back({machine_.members()[rank].process.id, workers_[rank].counted.value_or(0)});
  }
  return counted.pack();
}

std::string Coordinator::admit(const Greeting& greeting) {
  const ms::Status status = status_in(greeting);
  const std::lock_guard lock(mutex_);
  const ms::ProcessId process{greeting.pid, greeting.host, greeting.incarnation};
  const std::string refused = machine_.hello(greeting.rank, process, greeting.endpoint, status, now());
  act();
  if (refused.empty()) say_where(greeting.rank);
  return refused;
}

void Coordinator::refused(int rank, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  machine_.turned_away(rank, reason, now());
  act();
}

void Coordinator::silent(int peer, bool is_silent) {
  const std::lock_guard lock(mutex_);
  machine_.silent(peer, is_silent, now());
  act();
}

/// The channels that are received here.
void Coordinator::say_where(int rank) {
  Packed where;
  where.numbers = {coordinator_rank};
  for (const std::string& channel : own_channels()) {
    transport_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = where});
  }
}

void Coordinator::listens(const std::string& channel) {
  if (!remember_own(channel)) return;
  Packed where;
  where.numbers = {coordinator_rank};
  for (int rank = 0; rank < static_cast<int>(workers_.size()); ++rank) {
    transport_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = where});
  }
}

void Coordinator::worker_listens(int peer, const std::string& channel) {
  runtime_->located(channel, peer);
  const std::lock_guard lock(mutex_);
  places_[channel] = peer;
  if (plan_.place.parts == 1 && find_coupling(plan_.options.coupling).topology != Topology::peers) return;
  Packed where;
  where.numbers = {peer};
  for (int rank = 0; rank < static_cast<int>(workers_.size()); ++rank) {
    if (rank != peer) transport_->send(rank, {.kind = FrameKind::listens, .about = channel, .serial = term(), .content = where});
  }
}

std::shared_ptr<const Summable> Coordinator::all_reduce(const GroupSpec&, int, std::unique_ptr<Summable>) {
  throw std::logic_error("the coordinator takes no part in sums");
}

// What `rubato status` and the metrics page show.

void Coordinator::open() {
  if (status_writer_.joinable()) return;
  remember();
  transport_->start();
  begin_status();
}

/// What earlier coordinators of this job have counted, and which workers they knew; all but their last second of it.
void Coordinator::remember() {
  const auto file = std::filesystem::path(plan_.options.run_dir) / "status.json";
  if (group_.incarnation == 0 || !std::filesystem::exists(file)) return;
  try {
    const JobStatus before = status_from_json(read_file(file), file.string());
    std::vector<ms::ProcessId> processes(workers_.size());
    for (const WorkerStatus& is : before.workers) {
      const auto rank = static_cast<std::size_t>(is.rank);
      if (is.rank >= 0 && rank < processes.size()) processes[rank] = {is.pid, is.host, is.incarnation};
    }
    const std::lock_guard lock(mutex_);
    machine_.remember(before.deaths, before.joins, processes);
  } catch (const DataError&) {  // then they count from here
  }
}

void Coordinator::begin_status() {
  {
    const std::lock_guard lock(mutex_);
    state_ = "running";
  }
  status_writer_ = std::jthread([this](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any pause;
    while (!stop.stop_requested()) {
      write_status();
      std::unique_lock lock(mutex);
      pause.wait_for(lock, stop, 1s, [] { return false; });
    }
  });
}

/// With the lock held.
JobStatus Coordinator::status() const {
  const Refusals refusals = transport_->refusals();
  JobStatus job{
      .time = static_cast<double>(std::chrono::system_clock::now().time_since_epoch().count()) * 1e-9,
      .state = state_,
      .run = plan_.options.run_dir,
      .schedule = plan_.options.schedule,
      .coupling = plan_.options.coupling,
      .total_steps = plan_.total_steps,
      .train_loss = train_loss_,
      .test_accuracy = test_accuracy_,
      .coordinator = {.pid = getpid(), .host = host_name(), .incarnation = group_.incarnation, .rebuilt_from = rebuilt_from_},
      .deaths = machine_.deaths(),
      .joins = machine_.joins(),
      .refused = refusals.count(),
      .refused_reasons = refusals.reasons,
      .last_refused = refusals.last};
  const MeterReading reading = meter_.reading();
  if (reading.samples > 0) job.train_loss = reading.loss;
  std::optional<std::int64_t> least;
  std::int64_t furthest = 0;
  for (const ms::Member& member : machine_.members()) furthest = std::max(furthest, member.step);
  for (int rank = 0; rank < static_cast<int>(workers_.size()); ++rank) {
    const int stage = rank % plan_.place.parts;
    ms::Member member = machine_.members()[static_cast<std::size_t>(rank)];
    member.step = machine_.members()[static_cast<std::size_t>(rank - stage)].step;  // only the first stage takes batches
    WorkerStatus is = status_of(member, workers_[static_cast<std::size_t>(rank)], now());
    is.rank = rank;
    is.stage = plan_.place.parts > 1 ? stage : -1;
    if (is.state != "missing") is.steps_behind = furthest - member.step;
    job.workers.push_back(std::move(is));
    if (member.present()) least = std::min(least.value_or(member.step), member.step);
  }
  job.step = least.value_or(0);
  return job;
}

void Coordinator::write_status() {
  const std::lock_guard writing(writing_);
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    text = to_json(status());
  }
  try {
    write_atomically(std::filesystem::path(plan_.options.run_dir) / "status.json", text);
  } catch (const DataError&) {  // the run goes on; the summary will say whether the folder can be written
  }
}

std::unique_ptr<Execution> make_coordinator(const Plan& plan, Job& job, StepMeter& meter,
                                            std::function<void(const std::string&)> note) {
  auto coordinator = std::make_unique<Coordinator>(plan, job, meter, std::move(note));
  try {
    coordinator->serve_metrics();
  } catch (...) {
    const auto [code, sentence] = failure_of(std::current_exception());
    coordinator->refuse({code, "refused", sentence});  // workers wait to be told
    throw;
  }
  return coordinator;
}

}  // namespace rubato
