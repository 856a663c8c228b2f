#include "cluster/process_link.h"

#include <cstdint>

namespace rubato {

void ProcessLink::send(int peer, const std::string& channel, std::int64_t batch, Packed content) {
  content.numbers.push_back(batch);
  transport_->send(peer, {.kind = FrameKind::message, .about = channel, .serial = term_, .content = std::move(content)});
}

void ProcessLink::taken(int peer, const std::string& channel) {
  transport_->send(peer, {.kind = FrameKind::taken, .about = channel, .serial = term_, .content = {}});
}

void ProcessLink::refuse(int peer, const std::string& channel, const std::string& why) {
  transport_->ban(peer, "a message in '" + channel + "' that cannot be used: " + why);
}

bool ProcessLink::carry(int peer, Frame& frame) {
  if (frame.kind == FrameKind::taken) {
    if (frame.serial >= term_) runtime_->taken(frame.about);
    return true;
  }
  if (frame.kind != FrameKind::message) return false;
  if (frame.content.numbers.empty()) throw PackError("a message without its batch");
  if (frame.serial < term_) return true;
  const std::int64_t batch = frame.content.numbers.back();
  frame.content.numbers.pop_back();
  runtime_->deliver(peer, frame.about, batch, std::move(frame.content));
  return true;
}

void ProcessLink::begin_term(std::int64_t term) {
  runtime_->clear();
  term_ = term;
  const std::lock_guard lock(mutex_);
  own_.clear();
}

bool ProcessLink::remember_own(const std::string& channel) {
  const std::lock_guard lock(mutex_);
  return own_.insert(channel).second;
}

std::set<std::string> ProcessLink::own_channels() const {
  const std::lock_guard lock(mutex_);
  return own_;
}

}  // namespace rubato
