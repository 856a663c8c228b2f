#include "rubato/zoo/zoo.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "rubato/core/error.h"
#include "rubato/core/registry.h"
#include "zoo/families.h"
#include "zoo/init.h"

namespace rubato {
namespace {

using zoo_detail::InitScheme;

torch::Tensor half_square(const torch::Tensor& output, const torch::Tensor&) {
  return output.square().mean() / 2;
}

struct Recipe {
  ModelEntry entry;
  std::vector<Block> (*build)(const ZooOptions&);
  InitScheme init = InitScheme::torch_default;
  std::int64_t width;               ///< what ZooOptions::width 0 stands for
  std::optional<double> dropout{};  ///< what ZooOptions::dropout -1 stands for; empty: the model has none
  std::int64_t smallest_image = 1;  ///< in pixels; below it some layer has nothing left to look at
  Task task = classification();
};

template <int blocks_per_stage>
std::vector<Block> resnet(const ZooOptions& options) {
  return zoo_detail::resnet(options, blocks_per_stage);
}

std::vector<Block> wrn28(const ZooOptions& options) {
  return zoo_detail::wide_resnet(options, 4);
}

template <int blocks_per_stage>
Recipe resnet_recipe() {
  const std::string depth = std::to_string(6 * blocks_per_stage + 2);
  const std::string blocks = std::to_string(blocks_per_stage);
  const std::string summary = "residual network for small images, 3 stages of " + blocks + " blocks (He et al. 2015)";
  return {.entry = {"resnet" + depth, summary, false},
          .build = resnet<blocks_per_stage>,
          .init = InitScheme::he_normal,
          .width = 16,
          .smallest_image = 4};
}

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all{
      {.entry = {"mlp", "flatten, two hidden ReLU layers, linear output", false},
       .build = zoo_detail::mlp,
       .width = 256,
       .dropout = 0},
      {.entry = {"quadratic", "one weight, starts at 1000, loss w^2 / 2 whatever the data: shows what a method is stable with",
                 false},
       .build = zoo_detail::quadratic,
       .init = InitScheme::as_built,
       .width = 1,
       .task = {"quadratic", half_square}},
      {.entry = {"lenet", "two convolutions with pooling, three linear layers (after LeCun et al. 1998)", false},
       .build = zoo_detail::lenet,
       .width = 6,
       .smallest_image = 12},
      resnet_recipe<1>(),
      resnet_recipe<3>(),
      resnet_recipe<9>(),
      resnet_recipe<18>(),
      {.entry = {"wrn28-10", "wide residual network of 28 layers (Zagoruyko and Komodakis 2016)", false},
       .build = wrn28,
       .init = InitScheme::he_normal,
       .width = 160,
       .dropout = 0,
       .smallest_image = 4},
      {.entry = {"easgd-cifar", "three convolutions, dropout, two linear layers (Zhang et al. 2015)", false},
       .build = zoo_detail::easgd_cifar,
       .init = InitScheme::zero_bias,
       .width = 64,
       .dropout = 0.5,
       .smallest_image = 24},
      {.entry = {"lstm-char", "embedding, two LSTM layers, linear output for each character", true},
       .build = zoo_detail::lstm_char,
       .width = 128,
       .dropout = 0,
       .task = language_modelling()},
      {.entry = {"transformer-char", "learned positions, four causal pre-norm layers of four heads", true},
       .build = zoo_detail::transformer_char,
       .init = InitScheme::gaussian,
       .width = 128,
       .dropout = 0,
       .task = language_modelling()},
  };
  return all;
}

void require_at_least(std::int64_t least, std::int64_t given, const std::string& what, const std::string& model) {
  if (given >= least) return;
  throw UsageError(what + " " + std::to_string(given) + " is too small for model '" + model + "'; give at least " +
                   std::to_string(least));
}

void check_sizes(const Recipe& recipe, const ZooOptions& options) {
  const std::string& name = recipe.entry.name;
  require_at_least(1, options.classes, "number of classes", name);
  if (recipe.entry.text) {
    require_at_least(1, options.sequence_length, "sequence length", name);
  } else {
    require_at_least(1, options.channels, "number of image channels", name);
    require_at_least(recipe.smallest_image, options.image_size, "image size", name);
  }
}

std::int64_t resolved_width(const Recipe& recipe, std::int64_t width) {
  if (width >= 0) return width == 0 ? recipe.width : width;
  throw UsageError("width " + std::to_string(width) + " is below 1; give a width for model '" + recipe.entry.name +
                   "', or 0 for its own, which is " + std::to_string(recipe.width));
}

double resolved_dropout(const Recipe& recipe, double dropout) {
  if (dropout == -1) return recipe.dropout.value_or(0);
  if (!(dropout >= 0 && dropout < 1)) {
    throw UsageError("dropout " + std::to_string(dropout) + " is not a probability below 1; give one from 0 up to, not " +
                     "including, 1, or -1 for the own value of model '" + recipe.entry.name + "'");
  }
  if (dropout > 0 && !recipe.dropout) {
    throw UsageError("model '" + recipe.entry.name + "' has no dropout, so " + std::to_string(dropout) +
                     " would change nothing; give 0 or choose another model");
  }
  return dropout;
}

Model make(const Recipe& recipe, const ZooOptions& options) {
  check_sizes(recipe, options);
  ZooOptions resolved = options;
  resolved.width = resolved_width(recipe, options.width);
  resolved.dropout = resolved_dropout(recipe, options.dropout);
  Model model{recipe.entry.name, recipe.build(resolved), recipe.task};
  zoo_detail::initialise(model.blocks, recipe.init, options.seed);
  return model;
}

Registry<ModelEntry>& registry() {
  static Registry<ModelEntry> all("model", [] {
    std::vector<ModelEntry> entries;
    for (const Recipe& recipe : recipes()) {
      entries.push_back(recipe.entry);
      entries.back().make = [&recipe](const ZooOptions& options) { return make(recipe, options); };
      entries.back().reads = {"width", "dropout"};
    }
    return entries;
  }());
  return all;
}

}  // namespace

bool register_model(ModelEntry entry) {
  return registry().add(std::move(entry));
}

std::vector<ModelEntry> models() {
  return registry().all();
}

const ModelEntry& find_model(const std::string& name) {
  return registry().find(name);
}

Model make_model(const ZooOptions& options) {
  const ModelEntry& entry = find_model(options.model);
  ZooOptions completed = options;
  completed.values = completed_values(entry, options.values, {});
  return entry.make(completed);
}

}  // namespace rubato
