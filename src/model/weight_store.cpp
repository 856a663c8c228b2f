#include "rubato/model/weight_store.h"
#include "rubato/model/model.h"

#include <algorithm>
#include <cstdint>

#include "model/buffer_decays.h"
#include "rubato/core/error.h"
#include "rubato/model/digest.h"
#include "rubato/model/recycler.h"

// Thread rules and invariants
//  * BlockState::writer serialises writers of one block and covers `masters`, `optimizer`, `last_rate`, `averaged`: arithmetic
//  happens under it.
//  * BlockState::pointers covers `current` and `staleness`: held for a few assignments only, always innermost.
//  * A TensorSet reachable from `current` or from any Snapshot is never written. `masters` alias the newest parameters but are
//    given fresh storage before the optimizer touches them.

namespace rubato {

struct WeightStore::BlockState {
  int index = 0;
  std::string name;
  bool held = true;
  std::vector<std::string> parameter_names, buffer_names;
  std::vector<double> decays;  // of the buffers

  std::mutex writer;
  std::vector<torch::Tensor> masters;  // stable leaves: the optimizer's state is keyed by them
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  double last_rate = 0;  // of the optimizer's latest step; 0: none yet
  std::shared_ptr<Recycler> recycler = std::make_shared<Recycler>();
  std::vector<torch::Tensor> averaged;  // empty: no average is kept
  std::int64_t averaged_steps = 0;

  mutable std::mutex pointers;
  Snapshot current;
  StalenessCount staleness;

  Snapshot newest() const {
    const std::lock_guard lock(pointers);
    return current;
  }
};

namespace {

std::vector<std::string> qualified(const std::string& block, const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const std::string& name : names) all.push_back(block + "." + name);
  return all;
}

/// A set with the tensors of `set`, which it keeps alive, so that the recycler cannot hand them out again.
std::shared_ptr<TensorSet> sharing(const TensorSetPtr& set) {
  return {new TensorSet{set->tensors}, [set](TensorSet* shared) { delete shared; }};
}

/// Undistinguishable copy of `tensor` on `device`, without history.
torch::Tensor copy_to(const torch::Tensor& tensor, torch::Device device) {
  return tensor.detach().to(device, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace

Averaging parse_averaging(const std::string& name) {
  static const std::vector<std::string> names = {"none", "mean", "moving"};  // in the order of the enumeration
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) throw unknown_name("averaging", name, names);
  return static_cast<Averaging>(found - names.begin());
}

WeightStore::WeightStore(const Model& model, const StoreOptions& options) : options_(options) {
  torch::NoGradGuard no_grad;
  for (const Block& block : model.blocks) {
    auto state = std::make_unique<BlockState>();
    state->index = static_cast<int>(blocks_.size());
    state->held = !options.held || (state->index >= options.held->first && state->index < options.held->second);
    const torch::Device device = state->held ? options.device : torch::Device(torch::kMeta);
    state->name = block.name;
    auto parameters = std::make_shared<TensorSet>();
    auto buffers = std::make_shared<TensorSet>();
    const auto named_parameters = block.module.ptr()->named_parameters();
    const auto named_buffers = block.module.ptr()->named_buffers();
    for (const auto& item : named_parameters) {
      parameters->tensors.push_back(copy_to(item.value(), device));
      state->masters.push_back(parameters->tensors.back().detach().requires_grad_());
    }
    for (const auto& item : named_buffers) buffers->tensors.push_back(copy_to(item.value(), device));
    state->parameter_names = qualified(block.name, named_parameters.keys());
    state->buffer_names = qualified(block.name, named_buffers.keys());
    state->decays = rubato::buffer_decays(*block.module.ptr());
    if (!state->masters.empty() && state->held) state->optimizer = make_optimizer(options.optimizer, state->masters);
    if (options.averaging.kind != Averaging::none) {
      for (const torch::Tensor& tensor : parameters->tensors) state->averaged.push_back(tensor.clone());
    }
    state->current = {parameters, buffers};
    blocks_.push_back(std::move(state));
  }
}

WeightStore::~WeightStore() = default;

Snapshot WeightStore::read(Actor& actor, int block) const {
  const BlockState& state = *blocks_.at(block);
  Snapshot snapshot;
  Event event{.kind = EventKind::read, .block = block, .of = options_.name};
  actor.ordered(event, [&] {
    snapshot = state.newest();
    event.version = snapshot.parameters->version;
  });
  return snapshot;
}

std::int64_t WeightStore::apply(Actor& actor, int block, std::vector<torch::Tensor> gradients, std::int64_t clock_read,
                                std::int64_t batch) {
  BlockState& state = *blocks_.at(block);
  torch::NoGradGuard no_grad;
  actor.await_turn({.kind = EventKind::publish, .block = block, .of = options_.name});
  const std::lock_guard writing(state.writer);
  const TensorSetPtr before = state.newest().parameters;
  const std::int64_t staleness = before->clock - clock_read;

  auto next = state.recycler->take(before->tensors);
  next->version = before->version + 1;
  next->clock = before->clock + 1;
  clip(options_.optimizer, gradients);
  for (std::size_t i = 0; i < state.masters.size(); ++i) {
    next->tensors[i].copy_(before->tensors[i]);
    torch::Tensor& master = state.masters[i];
    master.set_data(next->tensors[i]);
    const bool scaled = options_.scale_by_staleness && staleness > 0 && gradients[i].defined();
    master.mutable_grad() = scaled ? gradients[i] / static_cast<double>(1 + staleness) : gradients[i];
  }
  if (state.optimizer) {
    const double now = rate(before->clock);
    state.optimizer->param_groups()[0].options().set_lr(now);
    if (options_.optimizer.momentum_form == MomentumForm::velocity) {
      keep_velocity(*state.optimizer, state.masters, state.last_rate, now);
    }
    state.optimizer->step();
    state.last_rate = now;
    for (torch::Tensor& master : state.masters) master.mutable_grad().reset();
  }
  return publish(actor, state, std::move(next),
                 {.kind = EventKind::publish, .block = block, .staleness = staleness, .batch = batch})
      ->version;
}

double WeightStore::rate(std::int64_t clock) const {
  return options_.optimizer.learning_rate.at(schedule_offset_ + clock / options_.updates_per_step);
}

std::int64_t WeightStore::skip(Actor& actor, int block) {
  BlockState& state = *blocks_.at(block);
  actor.await_turn({.kind = EventKind::publish, .block = block, .of = options_.name});
  const std::lock_guard writing(state.writer);
  const TensorSetPtr before = state.newest().parameters;
  auto next = sharing(before);
  next->version = before->version + 1;
  next->clock = before->clock + 1;
  return publish(actor, state, std::move(next), {.kind = EventKind::publish, .block = block})->version;
}

TensorSetPtr WeightStore::update(Actor& actor, int block, const char* what, Rule rule, std::optional<std::int64_t> clock) {
  BlockState& state = *blocks_.at(block);
  torch::NoGradGuard no_grad;
  actor.await_turn({.kind = EventKind::publish, .block = block, .of = options_.name});
  const std::lock_guard writing(state.writer);
  const TensorSetPtr before = state.newest().parameters;
  auto next = state.recycler->take(before->tensors);
  rule(*before, next->tensors);
  next->version = before->version + 1;
  next->clock = clock.value_or(before->clock);
  return publish(actor, state, std::move(next), {.kind = EventKind::publish, .block = block, .what = what});
}

TensorSetPtr WeightStore::iterate(Actor& actor, int block) const {
  const BlockState& state = *blocks_.at(block);
  const OptimizerOptions& optimizer = options_.optimizer;
  if (!optimizer.nesterov || !state.optimizer) return read(actor, block).parameters;
  torch::NoGradGuard no_grad;
  actor.await_turn({.kind = EventKind::read, .block = block, .of = options_.name});
  const std::lock_guard writing(blocks_.at(block)->writer);
  const TensorSetPtr now = read(actor, block).parameters;
  // torch's SGD keeps b(t+1) = m b(t) + g, so v = -rate * b and the published point is x + m v.
  const double step = optimizer.momentum * state.last_rate;
  auto iterate = state.recycler->take(now->tensors);
  iterate->version = now->version;
  iterate->clock = now->clock;
  for (std::size_t i = 0; i < now->tensors.size(); ++i) {
    const torch::Tensor velocity = momentum_buffer(*state.optimizer, state.masters[i]);
    iterate->tensors[i].copy_(now->tensors[i]);
    if (velocity.defined()) iterate->tensors[i].add_(velocity, step);
  }
  return iterate;
}

Snapshot WeightStore::result(int block) const {
  const BlockState& state = *blocks_.at(block);
  Snapshot snapshot = state.newest();
  const std::lock_guard writing(blocks_.at(block)->writer);
  if (state.averaged.empty()) return snapshot;
  auto averaged = std::make_shared<TensorSet>(TensorSet{{}, snapshot.parameters->version, snapshot.parameters->clock});
  for (const torch::Tensor& tensor : state.averaged) averaged->tensors.push_back(tensor.clone());
  snapshot.parameters = averaged;
  return snapshot;
}

// z(t+1) = (1 - a) z(t) + a w(t), z(0) = w(0), with the weights before the publication: the paper's equation.
void WeightStore::average(BlockState& state) const {
  if (state.averaged.empty()) return;
  torch::NoGradGuard no_grad;
  const double a =
      options_.averaging.kind == Averaging::mean ? 1.0 / static_cast<double>(state.averaged_steps + 1) : options_.averaging.rate;
  const TensorSetPtr now = state.newest().parameters;
  for (std::size_t i = 0; i < state.averaged.size(); ++i) state.averaged[i].lerp_(now->tensors[i], a);
  ++state.averaged_steps;
}

TensorSetPtr WeightStore::publish(Actor& actor, BlockState& state, std::shared_ptr<TensorSet> next, Event event) {
  average(state);
  event.version = next->version;
  event.of = options_.name;
  if (actor.compares_publications()) event.checksum = checksum(next->tensors);
  const TensorSetPtr published = next;
  TensorSetPtr replaced;  // destroyed after the lock is released: it may return its memory to the recycler
  actor.ordered(event, [&] {
    const std::lock_guard lock(state.pointers);
    replaced = std::move(state.current.parameters);
    state.current.parameters = std::move(next);
    if (event.staleness >= 0) {
      ++state.staleness.updates;
      state.staleness.sum += event.staleness;
      state.staleness.max = std::max(state.staleness.max, event.staleness);
    }
  });
  return published;
}

void WeightStore::merge_buffers(Actor& actor, int block, const TensorSetPtr& read, const std::vector<torch::Tensor>& after) {
  BlockState& state = *blocks_.at(block);
  if (after.empty()) return;
  torch::NoGradGuard no_grad;
  actor.await_turn({.kind = EventKind::publish_buffers, .block = block, .of = options_.name});
  const std::lock_guard writing(state.writer);
  const TensorSetPtr before = state.newest().buffers;
  auto next = std::make_shared<TensorSet>();
  next->version = before->version + 1;
  for (std::size_t i = 0; i < after.size(); ++i) {
    // Nothing came between: exactly what the module computed, so that one worker equals plain PyTorch to the bit.
    const std::int64_t missed = before->version - read->version;
    next->tensors.push_back(missed == 0 ? after[i].clone()
                                        : merged(before->tensors[i], read->tensors[i], after[i], state.decays[i], missed));
  }
  Event event{.kind = EventKind::publish_buffers, .block = block, .version = next->version, .of = options_.name};
  if (actor.compares_publications()) event.checksum = checksum(next->tensors);
  actor.ordered(event, [&] {
    const std::lock_guard lock(state.pointers);
    state.current.buffers = std::move(next);
  });
}

const std::vector<double>& WeightStore::buffer_decays(int block) const {
  return blocks_.at(block)->decays;
}

StalenessCount WeightStore::staleness(int block) const {
  const BlockState& state = *blocks_.at(block);
  const std::lock_guard lock(state.pointers);
  return state.staleness;
}

const std::vector<std::string>& WeightStore::parameter_names(int block) const {
  return blocks_.at(block)->parameter_names;
}
const std::vector<std::string>& WeightStore::buffer_names(int block) const {
  return blocks_.at(block)->buffer_names;
}
const std::string& WeightStore::block_name(int block) const {
  return blocks_.at(block)->name;
}

std::string WeightStore::digest() const {
  Digest digest;
  for (const auto& state : blocks_) {
    const Snapshot now = state->newest();
    for (std::size_t i = 0; i < now.parameters->tensors.size(); ++i) {
      digest.add(state->parameter_names[i], now.parameters->tensors[i]);
    }
    for (std::size_t i = 0; i < now.buffers->tensors.size(); ++i) {
      digest.add(state->buffer_names[i], now.buffers->tensors[i]);
    }
  }
  return digest.hex();
}

bool WeightStore::finite() const {
  for (const auto& state : blocks_) {
    if (!state->held) continue;
    for (const torch::Tensor& tensor : state->newest().parameters->tensors) {
      if (!torch::isfinite(tensor).all().item<bool>()) return false;
    }
  }
  return true;
}

void WeightStore::save(torch::serialize::OutputArchive& archive) const {
  for (const auto& state : blocks_) {
    if (!state->held) continue;
    torch::serialize::OutputArchive part(archive.compilation_unit());
    const std::lock_guard writing(state->writer);
    const Snapshot now = state->newest();
    part.write("weights", torch::IValue(now.parameters->tensors));
    part.write("buffers", torch::IValue(now.buffers->tensors));
    const StalenessCount counts = staleness(state->index);
    part.write("versions",
               torch::IValue(std::vector<std::int64_t>{now.parameters->version, now.buffers->version, counts.updates, counts.sum,
                                                       counts.max, now.parameters->clock, state->averaged_steps}));
    part.write("averaged", torch::IValue(state->averaged));
    part.write("last_rate", torch::IValue(state->last_rate));
    if (state->optimizer) {
      torch::serialize::OutputArchive moments(archive.compilation_unit());
      state->optimizer->save(moments);
      part.write("optimizer", moments);
    }
    archive.write(state->name, part);
  }
  archive.write("schedule_offset", torch::IValue(schedule_offset_));
}

/// A block as an archive has it, checked but not yet taken over.
struct WeightStore::Loaded {
  BlockState* state;
  std::shared_ptr<TensorSet> parameters, buffers;
  StalenessCount staleness;
  std::vector<torch::Tensor> averaged;
  std::int64_t averaged_steps = 0;
  double last_rate = 0;
  std::unique_ptr<torch::optim::Optimizer> optimizer;
};

WeightStore::Loaded WeightStore::read_block(BlockState& state, torch::serialize::InputArchive& part) const {
  const auto refuse = [&](const std::string& why) {
    throw DataError("the checkpoint does not fit this model: block '" + state.name + "' " + why);
  };
  const auto value = [&](const char* key) {
    torch::IValue found;
    if (!part.try_read(key, found)) refuse(std::string("has no '") + key + "'");
    return found;
  };
  const auto adopt = [&](const char* key, const std::vector<torch::Tensor>& current) {
    const auto saved = value(key).toTensorVector();
    auto set = std::make_shared<TensorSet>();
    if (saved.size() != current.size()) refuse("has another number of tensors");
    for (std::size_t i = 0; i < saved.size(); ++i) {
      if (saved[i].sizes() != current[i].sizes()) refuse("has tensors of other shapes");
      if (saved[i].scalar_type() != current[i].scalar_type()) refuse("has tensors of other types");
      set->tensors.push_back(copy_to(saved[i], options_.device));
    }
    return set;
  };
  const auto numbers = value("versions").toIntVector();
  if (numbers.size() != 7) refuse("has another number of versions");
  Loaded loaded{.state = &state, .averaged_steps = numbers[6]};
  loaded.parameters = adopt("weights", state.current.parameters->tensors);
  loaded.buffers = adopt("buffers", state.current.buffers->tensors);
  loaded.parameters->version = numbers[0];
  loaded.buffers->version = numbers[1];
  loaded.staleness = {numbers[2], numbers[3], numbers[4]};
  loaded.parameters->clock = numbers[5];
  if (!state.averaged.empty()) loaded.averaged = adopt("averaged", state.current.parameters->tensors)->tensors;
  loaded.last_rate = value("last_rate").toDouble();
  torch::serialize::InputArchive moments;
  if (state.optimizer && part.try_read("optimizer", moments)) {
    loaded.optimizer = make_optimizer(options_.optimizer, state.masters);
    loaded.optimizer->load(moments);
  }
  return loaded;
}

void WeightStore::load(torch::serialize::InputArchive& archive, bool partial) {
  torch::NoGradGuard no_grad;
  std::vector<Loaded> all;  // before anything changes: what does not fit leaves the store as it was
  for (auto& state : blocks_) {
    torch::serialize::InputArchive part;
    if (!state->held) continue;
    if (archive.try_read(state->name, part)) {
      all.push_back(read_block(*state, part));
    } else if (!partial) {
      throw DataError("the checkpoint does not fit this model: block '" + state->name + "' is missing");
    }
  }
  torch::IValue offset;
  if (archive.try_read("schedule_offset", offset)) schedule_offset_ = offset.toInt();
  for (Loaded& loaded : all) {
    BlockState& state = *loaded.state;
    for (std::size_t i = 0; i < state.masters.size(); ++i) state.masters[i].set_data(loaded.parameters->tensors[i]);
    state.current = {loaded.parameters, loaded.buffers};
    state.staleness = loaded.staleness;
    state.averaged = std::move(loaded.averaged);
    state.averaged_steps = loaded.averaged_steps;
    state.last_rate = loaded.last_rate;
    if (loaded.optimizer) state.optimizer = std::move(loaded.optimizer);
  }
}

}  // namespace rubato
