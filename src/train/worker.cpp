#include "rubato/train/worker.h"

#include <cstdint>
#include <thread>

#include <fmt/format.h>

#include "rubato/core/error.h"
#include "rubato/model/model.h"
#include "rubato/replica/packing.h"
#include "rubato/replica/tensor_sum.h"
#include "rubato/train/files.h"
#include "rubato/train/process.h"
#include "train/post_options.h"
#include "train/worker_implementation.h"

namespace rubato {
namespace {

using namespace std::chrono_literals;
constexpr auto handing_over = 50ms;  // of what the post has taken, to the system

}  // namespace

Worker::Implementation::Implementation(Plan plan, std::function<void(const std::string&)> note)
    : plan_(std::move(plan)),
      choice_(*plan_.processes),
      note_(std::move(note)),
      free_(has_free_membership(plan_.options, plan_.place.parts)),
      job_(plan_.model, plan_.job(), tap_),
      replica_(plan_.place.replica),
      meeting_(std::make_shared<MeetingAtHome>([this](const char* about, Packed content) { report(about, std::move(content)); })),
      collectives_(choice_.address, meeting_) {
  drop_what_others_hold();
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
  collectives_.complain_with([this](std::int64_t generation) {
    Packed broken;
    broken.numbers = {generation};
    report(report::broken, std::move(broken));
  });
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

JobEnd Worker::Implementation::run() {
  post_->start();
  if (!wait_for_home()) return {home_ended_.value_or(ExitCode::interrupted), "", ""};
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
      const auto code = static_cast<ExitCode>(unpacker.number());
      const std::string why = unpacker.text();
      report(report::left, {});
      post_->flush(1);
      std::this_thread::sleep_for(handing_over);
      return {code, "", why};
    }
  }
}

/// False: this process was asked to stop, or the job has ended, before anybody answered.
bool Worker::Implementation::wait_for_home() {
  std::unique_lock lock(mutex_);
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(plan_.options.patience);
  while (!home_ && !turned_away_ && std::chrono::steady_clock::now() < until) {
    if (stop_wanted_ || home_ended_) return false;
    changed_.wait_for(lock, 100ms);
  }
  if (turned_away_) throw UsageError("the job's home turns this process away: " + *turned_away_);
  if (!home_) {
    throw DataError(fmt::format("nobody answers at {} after {:g} s: is the home running there, with the same key file?",
                                choice_.home, plan_.options.patience));
  }
  return true;
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
    if (home_ended_) return {order::leave, 0, {.numbers = {static_cast<int>(*home_ended_)}, .texts = {""}}};
    const bool away =
        home_silent_ && std::chrono::steady_clock::now() - silent_since_ > std::chrono::duration<double>(plan_.options.patience);
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
  } catch (const std::exception& error) {
    const auto [code, sentence] = failure_of(error);
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
  if (!begin.members.empty()) {
    collectives_.meet(era(), begin.generation, begin.members, replica_, plan_.place.stage.value_or(0));
  }
  if (begin.start == BeginOrder::part) {
    Unpacker unpacker(begin.state);
    job_.load_part(replica_, unpack_bytes(unpacker));
  } else if (begin.start == BeginOrder::weights) {
    adopt(begin.state, begin.begin);
  }
  job_.open(begin.begin, begin.end);
  opened();
  if (begin.start == BeginOrder::join) join();
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

Worker::Worker(Plan plan, std::function<void(const std::string&)> note)
    : implementation_(std::make_unique<Implementation>(std::move(plan), std::move(note))) {}
Worker::~Worker() = default;
JobEnd Worker::run() {
  return implementation_->run();
}
void Worker::request_stop() {
  implementation_->request_stop();
}
void Worker::home_has_ended(ExitCode code) {
  implementation_->home_has_ended(code);
}
bool Worker::stop_requested() const {
  return implementation_->stop_requested();
}

}  // namespace rubato
