#include "cost/flop_counter.h"

#include <ATen/record_function.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace rubato {
namespace {

thread_local double* counted = nullptr;

const at::Tensor* tensor_at(const at::RecordFunction& call, std::size_t index) {
  const auto inputs = call.inputs();
  return index < inputs.size() && inputs[index].isTensor() && inputs[index].toTensor().defined() ? &inputs[index].toTensor()
                                                                                                 : nullptr;
}

/// Positions a convolution's window takes along one dimension.
std::int64_t positions(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

double convolution_flops(const at::RecordFunction& call) {
  const auto inputs = call.inputs();  // input, weight, bias, stride, padding, dilation, ...
  const at::Tensor *input = tensor_at(call, 0), *weight = tensor_at(call, 1);
  if (input == nullptr || weight == nullptr || inputs.size() < 6) return 0;
  const auto stride = inputs[3].toIntVector(), padding = inputs[4].toIntVector(), dilation = inputs[5].toIntVector();
  // A list of one element is for every dimension.
  const auto of = [](const std::vector<std::int64_t>& list, std::int64_t d) {
    return list.at(std::min(static_cast<std::size_t>(d - 2), list.size() - 1));
  };
  double flops = 2.0 * static_cast<double>(input->size(0) * weight->numel());
  for (std::int64_t d = 2; d < input->dim(); ++d) {
    flops *= static_cast<double>(positions(input->size(d), weight->size(d), of(stride, d), of(padding, d), of(dilation, d)));
  }
  return flops;
}

/// 2 x rows x inner x columns of `left` @ `right`, batched or not.
double product_flops(const at::Tensor* left, const at::Tensor* right) {
  if (left == nullptr || right == nullptr) return 0;
  return 2.0 * static_cast<double>(left->numel()) * static_cast<double>(right->size(-1));
}

double flops_of(const at::RecordFunction& call) {
  const std::string_view name = call.name();
  if (name == "aten::convolution") return convolution_flops(call);
  if (name == "aten::mm" || name == "aten::bmm") return product_flops(tensor_at(call, 0), tensor_at(call, 1));
  if (name == "aten::addmm" || name == "aten::baddbmm") return product_flops(tensor_at(call, 1), tensor_at(call, 2));
  // Wrappers of the above, counted by what they call.
  for (const std::string_view wrapper : {"conv", "linear", "matmul", "lstm", "mkldnn", "view", "reshape", "detach", "t",
                                         "transpose", "expand", "slice", "select", "empty", "as_strided"}) {
    if (name.starts_with("aten::") && name.substr(6).starts_with(wrapper)) return 0;
  }
  const at::Tensor* input = tensor_at(call, 0);
  return input == nullptr ? 0 : static_cast<double>(input->numel());
}

std::unique_ptr<at::ObserverContext> on_call(const at::RecordFunction& call) {
  if (counted != nullptr) *counted += flops_of(call);
  return nullptr;
}

}  // namespace

FlopCounter::FlopCounter() {
  counted = &flops_;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(on_call).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
}

FlopCounter::~FlopCounter() {
  at::removeCallback(handle_);
  counted = nullptr;
}

}  // namespace rubato
