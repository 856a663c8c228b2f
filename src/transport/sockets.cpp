#include "transport/sockets.h"

namespace rubato {
namespace {

constexpr std::size_t worth_sharing = 4096;  // bytes; smaller parts are cheaper to copy

void release(void*, void* owner) {
  delete static_cast<std::shared_ptr<const void>*>(owner);
}

zmq::message_t message_of(const Blob& blob) {
  if (blob.bytes < worth_sharing) return {blob.data, blob.bytes};
  return {const_cast<void*>(blob.data), blob.bytes, release, new std::shared_ptr<const void>(blob.owner)};
}

}  // namespace

Parts parts_of(const Frame& frame) {
  Parts parts;
  const std::string head = frame_head(frame);
  parts.emplace_back(head.data(), head.size());
  for (const Packed::Tensor& tensor : frame.content.tensors) {
    if (tensor.type >= 0) parts.push_back(message_of(tensor.content));
  }
  return parts;
}

bool send_parts(zmq::socket_t& socket, const std::string* to, Parts parts) {
  using enum zmq::send_flags;
  if (to != nullptr && !socket.send(zmq::buffer(*to), sndmore | dontwait)) return false;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!socket.send(parts[i], i + 1 < parts.size() ? sndmore | dontwait : dontwait)) return false;
  }
  return true;
}

std::optional<Parts> receive_parts(zmq::socket_t& socket, std::size_t most, bool& cut) {
  Parts parts;
  cut = false;
  for (;;) {
    zmq::message_t part;
    if (!socket.recv(part, parts.empty() ? zmq::recv_flags::dontwait : zmq::recv_flags::none)) return std::nullopt;
    const bool more = part.more();
    if (parts.size() < most) {
      parts.push_back(std::move(part));
    } else {
      cut = true;
    }
    if (!more) return parts;
  }
}

Frame frame_of(Parts parts, std::size_t first, const FrameLimits& limits) {
  if (parts.size() <= first) throw FrameError("a frame without a head");
  std::vector<Blob> blobs;
  for (std::size_t i = first + 1; i < parts.size(); ++i) {
    auto owner = std::make_shared<zmq::message_t>(std::move(parts[i]));
    const void* data = owner->data();
    const std::size_t bytes = owner->size();
    blobs.push_back({std::move(owner), data, bytes});
  }
  return parse_frame(parts[first].to_string_view(), blobs, limits);
}

std::size_t bytes_of(const Parts& parts) {
  std::size_t bytes = 0;
  for (const zmq::message_t& part : parts) bytes += part.size();
  return bytes;
}

}  // namespace rubato
