#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "rubato/model/weight_store.h"

namespace rubato {

/// Hands the memory of dead TensorSets out again. Thread-safe: the last reader of a set may be on any thread.
class Recycler : public std::enable_shared_from_this<Recycler> {
 public:
  /// A set with tensors shaped like `like`, contents undefined; returns here when its last owner lets go.
  std::shared_ptr<TensorSet> take(const std::vector<torch::Tensor>& like) {
    auto set = reuse();
    if (!set) {
      set = std::make_unique<TensorSet>();
      for (const torch::Tensor& tensor : like) set->tensors.push_back(torch::empty_like(tensor));
    }
    return {set.release(), [home = weak_from_this()](TensorSet* dead) {
              std::unique_ptr<TensorSet> owned(dead);
              if (const auto recycler = home.lock()) recycler->keep(std::move(owned));
            }};
  }

 private:
  std::unique_ptr<TensorSet> reuse() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return nullptr;
    auto set = std::move(free_.back());
    free_.pop_back();
    return set;
  }
  void keep(std::unique_ptr<TensorSet> set) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(set));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<TensorSet>> free_;
};

}  // namespace rubato
