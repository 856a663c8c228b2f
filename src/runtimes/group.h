#pragma once

#include <memory>
#include <vector>

#include "rubato/context/message.h"

namespace rubato {

/// One sum in the making. Not thread-safe.
class Sum {
 public:
  explicit Sum(int size) : parts_(static_cast<std::size_t>(size)) {}

  void put(int rank, std::unique_ptr<Summable> part) {
    parts_.at(static_cast<std::size_t>(rank)) = std::move(part);
    if (++arrived_ == parts_.size()) add_up();
  }
  bool complete() const { return result_ != nullptr; }
  const std::shared_ptr<const Summable>& result() const { return result_; }

 private:
  void add_up() {
    std::unique_ptr<Summable> sum = std::move(parts_.front());
    for (std::size_t rank = 1; rank < parts_.size(); ++rank) {
      sum->add(*parts_[rank]);
      parts_[rank].reset();
    }
    sum->set_parts(static_cast<int>(parts_.size()));
    result_ = std::move(sum);
  }

  std::vector<std::unique_ptr<Summable>> parts_;
  std::size_t arrived_ = 0;
  std::shared_ptr<const Summable> result_;
};

}  // namespace rubato
