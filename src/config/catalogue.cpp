#include "rubato/config/catalogue.h"

#include "rubato/core/error.h"
#include "rubato/couplings/coupling.h"
#include "rubato/data/dataset.h"
#include "rubato/model/optimizer.h"
#include "rubato/schedules/schedule.h"
#include "rubato/zoo/zoo.h"

namespace rubato {
namespace {

template <class Entry>
std::vector<Listed> lines_of(const std::vector<Entry>& entries) {
  std::vector<Listed> lines;
  for (const Entry& entry : entries)
    lines.push_back({entry.name, entry.summary + (entry.paper.empty() ? "" : "; " + entry.paper)});
  return lines;
}

std::vector<Listed> data_sets() {
  return {{"fashion-mnist", "60,000 + 10,000 images of clothes, 28 x 28, 10 classes (Debian: dataset-fashion-mnist)"},
          {"mnist", "60,000 + 10,000 handwritten digits, 28 x 28, IDX files"},
          {"cifar10", "50,000 + 10,000 colour images, 32 x 32, 10 classes, binary version"},
          {"cifar100", "50,000 + 10,000 colour images, 32 x 32, 100 classes, binary version"},
          {"text", "characters of a text; the last tenth is the test split"}};
}

std::vector<Listed> optimizers() {
  return {{"sgd", "stochastic gradient descent; --momentum, --nesterov, --weight-decay"},
          {"adam", "Adam (0.9, 0.999)"},
          {"adamw", "Adam with decoupled weight decay"},
          {"rmsprop", "RMSprop; --momentum"},
          {"adagrad", "Adagrad"}};
}

std::vector<Listed> model_lines() {
  std::vector<Listed> lines;
  for (const ZooEntry& entry : zoo()) lines.push_back({entry.name, entry.summary});
  return lines;
}

}  // namespace

const std::vector<std::string>& listable() {
  static const std::vector<std::string> kinds = {"schedules", "couplings", "models", "datasets", "optimizers"};
  return kinds;
}

std::vector<Listed> catalogue(const std::string& kind) {
  if (kind == "schedules") return lines_of(schedules());
  if (kind == "couplings") return lines_of(couplings());
  if (kind == "models") return model_lines();
  if (kind == "datasets") return data_sets();
  if (kind == "optimizers") return optimizers();
  throw unknown_name("catalogue", kind, listable());
}

}  // namespace rubato
