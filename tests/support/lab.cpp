#include "support/lab.h"

#include <cstdint>

#include "rubato/model/dropout.h"
#include "rubato/model/model.h"

namespace rubato::test {

Model norm_and_dropout_model() {
  torch::nn::Sequential layers({{"flatten", torch::nn::AnyModule(torch::nn::Flatten())},
                                {"wide", torch::nn::AnyModule(torch::nn::Linear(64, 12))},
                                {"norm", torch::nn::AnyModule(torch::nn::BatchNorm1d(12))},
                                {"act", torch::nn::AnyModule(torch::nn::ReLU())},
                                {"drop", torch::nn::AnyModule(Dropout(0.3))},
                                {"head", torch::nn::AnyModule(torch::nn::Linear(12, 4))}});
  torch::NoGradGuard no_grad;
  std::uint64_t index = 0;
  for (auto& item : layers->named_parameters()) {
    if (item.value().dim() == 2) item.value().normal_(0, 0.2, generator(100 + index++));
    if (item.key().ends_with("bias")) item.value().zero_();
  }
  return model_from(layers);
}

bool has_simulator() {
#ifdef RUBATO_HAS_SIMULATOR
  return true;
#else
  return false;
#endif
}

}  // namespace rubato::test
