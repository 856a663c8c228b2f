#include "rubato/schedules/gradient_model.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "rubato/core/random.h"
#include "rubato/model/optimizer.h"

namespace rubato {
namespace {

constexpr std::int64_t kernel = 3;

/// What a model's layers are made for: it is fixed by the first activation.
struct Form {
  bool images = false;        ///< N x C x H x W, else N x ... x F
  std::int64_t features = 0;  ///< C or F
};

struct Layer {
  torch::Tensor weight, bias;
};

Layer make_layer(const Form& form, std::int64_t in, std::int64_t out) {
  const torch::Tensor weight = form.images ? torch::zeros({out, in, kernel, kernel}) : torch::zeros({out, in});
  return {weight, torch::zeros({out})};
}

/// Uniform in +-1/sqrt(fan in), as PyTorch's layers.
void draw(Layer& layer, RandomStream stream) {
  const double bound = 1 / std::sqrt(static_cast<double>(layer.weight.numel() / layer.weight.size(0)));
  const torch::Generator generator = at::make_generator<at::CPUGeneratorImpl>(stream());
  layer.weight.uniform_(-bound, bound, generator);
  layer.bias.uniform_(-bound, bound, generator);
}

/// M predicts B delta: the gradient of each sample's own loss (each character's, in text), where delta is that of the mean over B
/// of them. So neither its rate nor its precision depends on the batch size. It minimises the mean over samples of
///   |M(h, y) - B delta|^2, summed over features.
class SyntheticGradient final : public GradientModel {
 public:
  SyntheticGradient(const GradientModelOptions& options, std::uint64_t seed, int cut)
      : options_(options), seed_(seed), cut_(static_cast<std::uint64_t>(cut)) {}

  torch::Tensor predict(const AtCut& at) override {
    if (at.activation.is_meta()) return torch::empty_like(at.activation);  // nothing is computed in this run
    const torch::NoGradGuard no_grad;
    build_for(at.activation);
    return (forward(at) / static_cast<double>(at.target.numel())).to(at.activation.scalar_type());
  }

  void learn(const AtCut& at, const torch::Tensor& gradient) override {
    if (at.activation.is_meta()) return;
    const torch::AutoGradMode record(true);
    build_for(at.activation);
    const double count = static_cast<double>(at.target.numel());
    const torch::Tensor wanted = gradient.detach().to(torch::kFloat32) * count;
    const torch::Tensor error = (forward(at) - wanted).square().sum() / count;
    const std::vector<torch::Tensor> gradients = torch::autograd::grad({error}, parameters_);
    for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].mutable_grad() = gradients[i];
    optimizer_->step();
  }

  Operations operations(const torch::Tensor& activation) const override;

  void save(torch::serialize::OutputArchive& archive) const override;
  void load(torch::serialize::InputArchive& archive) override;

 private:
  bool built() const { return optimizer_ != nullptr; }

  void build_for(const torch::Tensor& activation) {
    if (!built()) build(form_of(activation), activation.device());
  }
  static Form form_of(const torch::Tensor& activation) {
    const bool images = activation.dim() == 4;
    return {images, activation.size(images ? 1 : -1)};
  }
  std::int64_t inputs_of(const Form& form) const { return form.features + (options_.labels ? options_.classes : 0); }
  std::int64_t hidden_of(const Form& form) const { return form.images ? form.features : options_.width; }

  /// Every layer is drawn but the last, which starts at zero: so do the predictions.
  void build(const Form& form, torch::Device device) {
    const torch::NoGradGuard no_grad;
    form_ = form;
    const std::int64_t hidden = hidden_of(form);
    std::int64_t in = inputs_of(form);
    for (int i = 0; i <= options_.layers; ++i) {
      const bool is_last = i == options_.layers;
      Layer layer = make_layer(form, in, is_last ? form.features : hidden);
      if (!is_last) draw(layer, RandomStream(seed_, RandomUse::gradient_model, {cut_, static_cast<std::uint64_t>(i)}));
      for (const torch::Tensor& tensor : {layer.weight, layer.bias}) {
        parameters_.push_back(tensor.to(device).requires_grad_(true));
      }
      in = hidden;
    }
    optimizer_ = make_optimizer({.name = "adam", .learning_rate = {.base = options_.learning_rate}}, parameters_);
  }

  torch::Tensor forward(const AtCut& at) const {
    torch::Tensor x = at.activation.detach().to(torch::kFloat32);
    if (options_.labels) x = torch::cat({x, label_features(at)}, form_.images ? 1 : -1);
    for (std::size_t i = 0; i < parameters_.size(); i += 2) {
      if (i > 0) x = torch::relu(x);
      x = form_.images ? torch::conv2d(x, parameters_[i], parameters_[i + 1], /*stride=*/1, /*padding=*/kernel / 2)
                       : torch::linear(x, parameters_[i], parameters_[i + 1]);
    }
    return x;
  }

  /// One-hot labels, the same at every position that a label speaks for.
  torch::Tensor label_features(const AtCut& at) const {
    torch::Tensor hot = torch::one_hot(at.target.to(at.activation.device()), options_.classes).to(torch::kFloat32);
    std::vector<std::int64_t> shape = at.activation.sizes().vec();
    shape[form_.images ? 1 : shape.size() - 1] = options_.classes;
    if (form_.images) return hot.unsqueeze(-1).unsqueeze(-1).expand(shape);
    while (hot.dim() < at.activation.dim()) hot = hot.unsqueeze(1);
    return hot.expand(shape);
  }

  GradientModelOptions options_;
  std::uint64_t seed_, cut_;
  Form form_;
  std::vector<torch::Tensor> parameters_;  // weight, bias, weight, bias, ...; empty until the first activation
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

/// Products count 2 for each multiply-add; a layer's backward pass is two products of the same size, of which the first layer,
/// below which nothing learns, has one. Adam takes twelve operations for each parameter.
GradientModel::Operations SyntheticGradient::operations(const torch::Tensor& activation) const {
  constexpr double of_adam = 12;
  const Form form = form_of(activation);
  const double positions = static_cast<double>(activation.numel() / std::max<std::int64_t>(1, form.features));
  const double taps = form.images ? kernel * kernel : 1;
  double forward = 0, backward = 0, parameters = 0, in = static_cast<double>(inputs_of(form));
  for (int i = 0; i <= options_.layers; ++i) {
    const double out = static_cast<double>(i == options_.layers ? form.features : hidden_of(form));
    const double product = 2 * positions * in * out * taps;
    forward += product + (i > 0 ? positions * in : 0);  // with the ReLU before it
    backward += product + (i > 0 ? product + positions * in : 0);
    parameters += in * out * taps + out;
    in = out;
  }
  const double elements = static_cast<double>(activation.numel());
  // The prediction is divided by the batch; the error is a difference, squared, summed, and goes back through these.
  return {forward + elements, forward + 5 * elements + backward + of_adam * parameters};
}

void SyntheticGradient::save(torch::serialize::OutputArchive& archive) const {
  archive.write("built", torch::IValue(built()));
  if (!built()) return;
  archive.write("images", torch::IValue(form_.images));
  archive.write("features", torch::IValue(form_.features));
  archive.write("parameters", torch::IValue(parameters_));
  torch::serialize::OutputArchive moments(archive.compilation_unit());
  optimizer_->save(moments);
  archive.write("moments", moments);
}

void SyntheticGradient::load(torch::serialize::InputArchive& archive) {
  parameters_.clear();
  optimizer_.reset();
  torch::IValue was_built, images, features, parameters;
  archive.read("built", was_built);
  if (!was_built.toBool()) return;
  archive.read("images", images);
  archive.read("features", features);
  archive.read("parameters", parameters);
  const std::vector<torch::Tensor> saved = parameters.toTensorVector();
  build({images.toBool(), features.toInt()}, saved.front().device());
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].copy_(saved.at(i));
  torch::serialize::InputArchive moments;
  archive.read("moments", moments);
  optimizer_->load(moments);
}

}  // namespace

std::unique_ptr<GradientModel> make_synthetic_gradient(const GradientModelOptions& options, std::uint64_t seed, int cut) {
  return std::make_unique<SyntheticGradient>(options, seed, cut);
}

}  // namespace rubato
