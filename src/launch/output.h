#pragma once

#include <string>

#include "rubato/io/descriptor.h"

namespace rubato {

/// What a process writes to one of its streams, passed on in whole lines.
class Output {
 public:
  /// `target`: descriptor of the launcher, each line of it begins with `prefix`; -1 drops everything.
  Output(int target, std::string prefix) : target_(target), prefix_(std::move(prefix)) {}

  /// The read end of the pipe of a process that was just started; does not block.
  void attach(Descriptor source) { source_ = std::move(source); }
  /// To be polled; -1 when there is nothing to expect.
  int source() const { return source_.number(); }
  /// What is there now. Closes the source at its end.
  void pass_on();
  /// The rest, when the process has ended: what is in the pipe and a last line without an end.
  void finish();
  /// Whether a line could not be written, to a full disk for example. Not: whoever read has gone.
  bool lost() const { return lost_; }

 private:
  bool read_once();
  void take(const char* text, std::size_t size);
  void write(const std::string& text);

  int target_;
  std::string prefix_;
  Descriptor source_;
  std::string partial_;
  bool lost_ = false;
};

}  // namespace rubato
