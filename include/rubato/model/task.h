#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "rubato/model/loss.h"
#include "rubato/tensor/tensor.h"

namespace rubato {

/// Predictions of a batch, and how many of them are right.
struct Counted {
  std::int64_t correct = 0, predictions = 0;
};

/// What a model is trained for: what is minimised, and what counts as right. Whoever makes a model chooses its task; loss,
/// training figures and tests all go by it. Nothing is guessed from shapes, which do not tell: N x 8 x 8 may be 8 classes at 8
/// positions in either order.
struct Task {
  std::string name;   ///< in messages
  LossFunction loss;  ///< mean over the batch
  /// Of the output of the last block and the targets. Empty: the task has no accuracy, and none is reported.
  std::function<Counted(const torch::Tensor& output, const torch::Tensor& target)> count = nullptr;
};

/// One class for each sample, or for each position of it: output N x classes x positions..., as images have it, with targets
/// N x positions... (int64). So N x classes with N is a label for each image, N x classes x H x W with N x H x W a segmentation.
/// The loss is the mean cross-entropy. UsageError when the shapes differ.
Task classification();

/// The next token at each position: output N x length x classes, targets N x length (int64). As classification with the classes
/// last; the same as that for N x classes. UsageError when the shapes differ.
Task language_modelling();

/// Yes or no, by one logit each: output and targets (0 or 1) of the same shape, or the output with one more dimension of size 1
/// at place 1 or at the end. Several answers for each sample (labels that do not exclude each other) count one by one. The loss
/// is the mean binary cross-entropy with logits; a logit above 0 says yes. UsageError when the shapes differ.
Task binary_classification();

}  // namespace rubato
