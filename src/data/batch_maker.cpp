#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "data/pixels.h"
#include "rubato/core/error.h"
#include "rubato/core/random.h"
#include "rubato/data/batch_source.h"

namespace rubato {
namespace {

void check_options(const Dataset& data, const BatchOptions& options) {
  if (options.batch_size < 1) {
    throw UsageError("batch size " + std::to_string(options.batch_size) + " is not allowed: it must be at least 1");
  }
  if (options.augment && data.is_text()) {
    throw UsageError("augmentation flips and crops images, and data set '" + data.name + "' is text: leave out --augment");
  }
}

/// Rows are copied from raw memory, so what the library's user puts in must have the layout that dataset.h promises.
void check_data(const Dataset& data) {
  const auto require = [&](bool sound, const std::string& what) {
    if (!sound) throw UsageError("data set '" + data.name + "' cannot be batched: " + what);
  };
  require(data.inputs.defined() && data.targets.defined(), "inputs and targets must both be given");
  require(data.inputs.dim() >= 1 && data.targets.dim() >= 1 && data.size() > 0, "it holds no sample");
  require(data.targets.size(0) == data.size(),
          "it has " + std::to_string(data.size()) + " inputs, but " + std::to_string(data.targets.size(0)) + " targets");
  require(data.targets.scalar_type() == torch::kInt64, "targets must be int64");
  require(data.inputs.is_contiguous() && data.targets.is_contiguous(), "call contiguous() on inputs and targets");
  require(data.inputs.is_cpu() && data.targets.is_cpu(), "inputs and targets must be in the processor's memory");
  if (data.is_text()) return;
  require(data.inputs.scalar_type() == torch::kUInt8 && data.inputs.dim() == 4,
          "inputs must be uint8 images N x C x H x W or int64 tokens N x length");
  const auto channels = static_cast<std::size_t>(data.inputs.size(1));
  require(data.mean.size() == channels && data.deviation.size() == channels,
          "mean and deviation must have one number for each of " + std::to_string(channels) + " channels");
  require(std::ranges::all_of(data.deviation, [](double value) { return value > 0; }), "deviations must be above 0");
}

/// The chosen rows of an int64 tensor of any shape.
torch::Tensor rows(const torch::Tensor& table, const std::vector<std::int64_t>& samples) {
  std::vector<std::int64_t> shape = table.sizes().vec();
  shape[0] = static_cast<std::int64_t>(samples.size());
  torch::Tensor result = torch::empty(shape, torch::kInt64);
  const std::int64_t width = table.numel() / table.size(0);
  const auto* from = table.data_ptr<std::int64_t>();
  auto* to = result.data_ptr<std::int64_t>();
  for (const std::int64_t sample : samples) to = std::copy_n(from + sample * width, width, to);
  return result;
}

}  // namespace

BatchMaker::BatchMaker(std::shared_ptr<const Dataset> data, BatchOptions options) : data_(std::move(data)), options_(options) {
  check_data(*data_);
  check_options(*data_, options_);
  tables_ = pixel_tables(data_->mean, data_->deviation);
}

std::int64_t BatchMaker::batches_per_epoch() const {
  return (data_->size() - 1) / options_.batch_size + 1;
}

Batch BatchMaker::make(std::int64_t index) const {
  if (options_.dry_run) return dry_run_batch(index);
  const std::vector<std::int64_t> chosen = samples(index);
  const std::int64_t epoch = index / batches_per_epoch();
  return {index, epoch, data_->is_text() ? rows(data_->inputs, chosen) : images(chosen, epoch), rows(data_->targets, chosen)};
}

Batch BatchMaker::dry_run_batch(std::int64_t index) const {
  const auto shaped = [&](const torch::Tensor& table, torch::ScalarType type) {
    std::vector<std::int64_t> shape = table.sizes().vec();
    shape[0] = std::min(options_.batch_size, data_->size() - index % batches_per_epoch() * options_.batch_size);
    return torch::empty(shape, torch::TensorOptions(torch::kMeta).dtype(type));
  };
  return {index, index / batches_per_epoch(), shaped(data_->inputs, data_->is_text() ? torch::kInt64 : torch::kFloat32),
          shaped(data_->targets, torch::kInt64)};
}

std::vector<std::int64_t> BatchMaker::samples(std::int64_t index) const {
  if (index < 0) {
    throw UsageError("batch " + std::to_string(index) + " does not exist: batches are counted from 0");
  }
  const std::int64_t first = index % batches_per_epoch() * options_.batch_size;
  const std::int64_t last = first + std::min(options_.batch_size, data_->size() - first);
  const Permutation order = permutation(index / batches_per_epoch());
  return {order->begin() + first, order->begin() + last};
}

BatchMaker::Permutation BatchMaker::permutation(std::int64_t epoch) const {
  const std::scoped_lock lock(mutex_);
  if (epoch != cached_epoch_) {
    cached_ = shuffled(epoch);
    cached_epoch_ = epoch;
  }
  return cached_;
}

BatchMaker::Permutation BatchMaker::shuffled(std::int64_t epoch) const {
  auto order = std::make_shared<std::vector<std::int64_t>>(data_->size());
  std::iota(order->begin(), order->end(), 0);
  if (!options_.shuffle) return order;
  // Fisher-Yates, written out because std::shuffle may differ between standard libraries.
  RandomStream random(options_.seed, RandomUse::shuffle, {static_cast<std::uint64_t>(epoch)});
  for (std::size_t i = order->size(); i > 1; --i) std::swap((*order)[i - 1], (*order)[random.below(i)]);
  return order;
}

torch::Tensor BatchMaker::images(const std::vector<std::int64_t>& samples, std::int64_t epoch) const {
  const torch::Tensor& inputs = data_->inputs;
  const ImageShape shape{inputs.size(1), inputs.size(2), inputs.size(3)};
  torch::Tensor result =
      torch::empty({static_cast<std::int64_t>(samples.size()), shape.channels, shape.height, shape.width}, torch::kFloat32);
  const auto* raw = inputs.data_ptr<std::uint8_t>();
  auto* out = result.data_ptr<float>();
  for (const std::int64_t sample : samples) {
    const std::uint8_t* image = raw + sample * shape.pixels();
    if (options_.augment) {
      const RandomStream random(options_.seed, RandomUse::augment,
                                {static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(sample)});
      write_image(image, shape, tables_, Jitter::drawn(random), out);
    } else {
      write_image(image, shape, tables_, out);
    }
    out += shape.pixels();
  }
  return result;
}

}  // namespace rubato
