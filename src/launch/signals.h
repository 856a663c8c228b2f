#pragma once

#include <csignal>

#include "rubato/io/descriptor.h"

namespace rubato {

/// Counts SIGINT and SIGTERM while it lives instead of dying from them, and lets writes to closed pipes fail. One at a time.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  /// Readable when there are some.
  int source() const { return counter_.number(); }
  /// How many came since the last call.
  int take() const;

 private:
  Descriptor counter_;
  struct sigaction interrupt_ {
  }, terminate_{}, pipe_{}, child_{};
};

}  // namespace rubato
