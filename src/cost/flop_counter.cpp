#include "cost/flop_counter.h"

#include <ATen/record_function.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
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

/// Of a whole layer in one call: each weight matrix of a gate multiplies each element of the sequence.
double recurrent_flops(const at::RecordFunction& call) {
  const at::Tensor* input = tensor_at(call, 0);
  if (input == nullptr) return 0;
  std::int64_t weights = 0;
  const auto add = [&](const at::Tensor& tensor) {
    if (tensor.defined() && tensor.dim() == 2) weights += tensor.numel();
  };
  // input, four weights, states, ... (mkldnn) or input, list of weights, ... (cuDNN, MIOpen)
  const auto inputs = call.inputs();
  for (std::size_t i = 1; i < std::min<std::size_t>(inputs.size(), 5); ++i) {
    if (inputs[i].isTensor()) add(inputs[i].toTensor());
    if (inputs[i].isTensorList()) {
      for (const at::Tensor& tensor : inputs[i].toTensorVector()) add(tensor);
    }
  }
  return 2.0 * static_cast<double>(input->numel() / std::max<std::int64_t>(input->size(-1), 1)) * static_cast<double>(weights);
}

/// softmax(Q K') V in one call.
double attention_flops(const at::RecordFunction& call) {
  const at::Tensor *query = tensor_at(call, 0), *key = tensor_at(call, 1), *value = tensor_at(call, 2);
  if (query == nullptr || key == nullptr || value == nullptr) return 0;
  const double rows = static_cast<double>(query->numel() / std::max<std::int64_t>(query->size(-1), 1));
  return 2.0 * rows * static_cast<double>(key->size(-2)) * static_cast<double>(query->size(-1) + value->size(-1));
}

/// What computes nothing, or is counted by what it calls.
bool is_free(std::string_view operation) {
  static constexpr std::string_view prefixes[] = {"conv",         "_conv",   "linear",   "matmul",     "mkldnn",    "view",
                                                  "_unsafe_view", "reshape", "_reshape", "detach",     "transpose", "expand",
                                                  "slice",        "select",  "empty",    "as_strided", "unsafe_",   "split",
                                                  "narrow",       "unbind",  "chunk"};
  static constexpr std::string_view names[] = {"lstm",
                                               "gru",
                                               "rnn_tanh",
                                               "rnn_relu",
                                               "t",
                                               "to",
                                               "permute",
                                               "squeeze",
                                               "unsqueeze",
                                               "flatten",
                                               "alias",
                                               "resolve_conj",
                                               "einsum",
                                               "bilinear",
                                               "_trilinear",
                                               "_to_copy",
                                               "copy_",
                                               "contiguous",
                                               "scaled_dot_product_attention",
                                               "_scaled_dot_product_attention_math"};
  return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return operation.starts_with(prefix); }) ||
         std::ranges::find(names, operation) != std::end(names);
}

double flops_of(const at::RecordFunction& call) {
  constexpr std::string_view library = "aten::";
  std::string_view name = call.name();
  if (name.starts_with(library)) name.remove_prefix(library.size());
  if (name == "convolution") return convolution_flops(call);
  if (name == "mm" || name == "bmm") return product_flops(tensor_at(call, 0), tensor_at(call, 1));
  if (name == "addmm" || name == "baddbmm") return product_flops(tensor_at(call, 1), tensor_at(call, 2));
  if (name == "mkldnn_rnn_layer" || name == "_cudnn_rnn" || name == "miopen_rnn") return recurrent_flops(call);
  if (name.starts_with("_scaled_dot_product_") && name != "_scaled_dot_product_attention_math") return attention_flops(call);
  if (is_free(name)) return 0;
  const at::Tensor* input = tensor_at(call, 0);
  const double numbers = input == nullptr ? 0 : static_cast<double>(input->numel());
  return name == "mv" || name == "dot" ? 2 * numbers : numbers;
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
