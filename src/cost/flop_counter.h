#pragma once

namespace rubato {

/// Counts the floating-point operations of the operators that this thread calls while it lives: convolutions and matrix products
/// exactly (a multiply-add is 2), every other operator as one operation per element of its first input.
class FlopCounter {
 public:
  FlopCounter();
  ~FlopCounter();
  FlopCounter(const FlopCounter&) = delete;
  FlopCounter& operator=(const FlopCounter&) = delete;
  double flops() const { return flops_; }

 private:
  double flops_ = 0;
  unsigned long handle_ = 0;
};

}  // namespace rubato
