#include "rubato/model/dropout.h"

#include <fmt/format.h>

#include <ATen/CPUGeneratorImpl.h>

#include "rubato/core/error.h"
#include "rubato/core/random.h"

namespace rubato {
namespace {
thread_local PassKeyScope* current_scope = nullptr;
}

PassKeyScope::PassKeyScope(PassKey key) : key_(key), outer_(current_scope) {
  current_scope = this;
}
PassKeyScope::~PassKeyScope() {
  current_scope = outer_;
}

torch::Generator next_pass_generator() {
  PassKeyScope* scope = current_scope;
  if (scope == nullptr) throw UsageError("a module drew random numbers outside a training pass");
  const PassKey& key = scope->key_;
  RandomStream stream(key.seed, RandomUse::dropout, {key.batch, key.block, scope->draws_++});
  return at::make_generator<at::CPUGeneratorImpl>(stream());
}

DropoutImpl::DropoutImpl(double probability) : probability_(probability) {
  if (!(probability >= 0 && probability < 1)) {
    throw UsageError("dropout probability " + fmt::format("{}", probability) + " is outside [0, 1)");
  }
}

torch::Tensor DropoutImpl::forward(const torch::Tensor& input) {
  if (!is_training() || probability_ == 0) return input;
  const double keep = 1 - probability_;
  const torch::Tensor mask = torch::empty(input.sizes(), torch::kFloat32).bernoulli_(keep, next_pass_generator());
  return input * mask.div_(keep).to(input.options());
}

}  // namespace rubato
