#include "cluster/transport_options.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "rubato/model/model.h"

namespace rubato {
namespace {

constexpr std::size_t kib = 1024;
constexpr double least_silence_of_fixed_members = 10;  // they are waited for: a false alarm costs more than a late one

/// Bytes of the largest parameter or buffer, and of all.
std::pair<std::size_t, std::size_t> bytes_of(const Model& model) {
  std::size_t largest = 0, all = 0;
  for (const Block& block : model.blocks) {
    auto tensors = block.module.ptr()->parameters();
    for (const torch::Tensor& buffer : block.module.ptr()->buffers()) tensors.push_back(buffer);
    for (const torch::Tensor& tensor : tensors) {
      largest = std::max(largest, tensor.nbytes());
      all += tensor.nbytes();
    }
  }
  return {largest, all};
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// Where workers have free membership only weights travel, tensor by tensor. Elsewhere whole states do: weights, moments,
/// averages, passes in flight with their weights.
TransportOptions transport_options(const Plan& plan, const ProcessChoice& choice) {
  TransportOptions options;
  options.me = {.rank = choice.rank,
                .incarnation = choice.incarnation,
                .digest = digest_of(plan.options),
                .host = host_name(),
                .pid = getpid()};
  const bool free = has_free_membership(plan.options, plan.place.parts);
  options.bind = choice.is_coordinator() ? choice.coordinator : "tcp://" + choice.address + ":*";
  options.coordinator = choice.is_coordinator() ? "" : choice.coordinator;
  options.curve = choice.curve;
  options.credentials = choice.credentials;
  options.reconnect = free;
  const auto [largest, all] = bytes_of(plan.model);
  const std::size_t passes = 4 * static_cast<std::size_t>(std::max(1, plan.options.stages));
  options.limits.tensor_bytes = free ? std::max(largest, 64 * kib) : std::max(all * (8 + passes), 256 * kib * kib);
  options.silence_seconds = free ? plan.options.silence : std::max(plan.options.silence, least_silence_of_fixed_members);
  options.latency_seconds = plan.options.link_latency_ms * 1e-3;
  return options;
}

}  // namespace rubato
