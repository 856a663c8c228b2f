//   Fashion-MNIST ──> ddg-0 ──activations──> ddg-1 ──> loss
//                       ^─────gradients─────────┘
//
// The command line from C++: options in, a finished run folder and its trainer out.
#include <cstdio>

#include "rubato/rubato.h"

int main() {
  rubato::prepare_process();
  rubato::TrainOptions options;
  options.model = "lenet";
  options.schedule = "ddg";
  options.stages = 2;
  options.steps = 200;
  options.lr = 0.05;
  const auto trainer = rubato::train(options);
  std::printf("%s", trainer->summary().c_str());
}
