#include "rubato/transport/frame.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>

#include "frame.pb.h"

namespace rubato {
namespace {

using transport::Head;

constexpr int undefined_type = -1;
constexpr int most_dimensions = 16;

[[noreturn]] void not_a_frame() {
  throw FrameError("the head is not one of a frame");
}

/// Counted before protobuf makes an object of each: a tensor takes two bytes of a head and many times that in memory.
void check_number_of_tensors(std::string_view head, const FrameLimits& limits) {
  using google::protobuf::internal::WireFormatLite;
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const std::uint8_t*>(head.data()),
                                                static_cast<int>(head.size()));
  std::size_t tensors = 0;
  while (const std::uint32_t tag = stream.ReadTag()) {
    if (WireFormatLite::GetTagFieldNumber(tag) == Head::kTensorsFieldNumber) ++tensors;
    if (tensors > limits.tensors) throw FrameError(fmt::format("more than {} tensors in one frame", limits.tensors));
    if (!WireFormatLite::SkipField(&stream, tag)) not_a_frame();
  }
}

Head parse_head(std::string_view bytes, const FrameLimits& limits) {
  constexpr std::size_t most_protobuf_reads = std::numeric_limits<int>::max();
  if (bytes.size() > std::min(limits.head_bytes, most_protobuf_reads)) {
    throw FrameError(fmt::format("a head of {} bytes; at most {} are taken", bytes.size(), limits.head_bytes));
  }
  check_number_of_tensors(bytes, limits);
  Head head;
  if (!head.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) not_a_frame();
  return head;
}

void check_version(const Head& head) {
  if (head.version() != frame_version) {
    throw FrameError(fmt::format("version {} of the protocol; this process speaks version {}", head.version(), frame_version));
  }
}

FrameKind kind_of(const Head& head) {
  constexpr auto first = static_cast<std::uint32_t>(FrameKind::hello), last = static_cast<std::uint32_t>(FrameKind::report);
  if (head.kind() < first || head.kind() > last) throw FrameError(fmt::format("unknown kind {}", head.kind()));
  return static_cast<FrameKind>(head.kind());
}

/// Bytes that a tensor of these sizes has. Sizes of zero do not excuse the others: libtorch multiplies those for its strides.
std::size_t content_bytes(const Head::Tensor& tensor, const FrameLimits& limits) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  auto bytes = static_cast<std::int64_t>(element_bytes(tensor.type()));
  bool empty = false;
  for (const std::int64_t size : tensor.sizes()) {
    if (size < 0) throw FrameError(fmt::format("a tensor of negative size {}", size));
    empty = empty || size == 0;
    const std::int64_t factor = std::max<std::int64_t>(size, 1);
    if (bytes > most / factor) throw FrameError("the product of a tensor's sizes overflows");
    bytes *= factor;
  }
  if (empty) return 0;
  if (static_cast<std::uint64_t>(bytes) > limits.tensor_bytes) {
    throw FrameError(fmt::format("a tensor of {} bytes; at most {} are taken", bytes, limits.tensor_bytes));
  }
  return static_cast<std::size_t>(bytes);
}

/// The parts after the head, one by one.
class TensorParts {
 public:
  explicit TensorParts(const std::vector<Blob>& parts) : parts_(parts) {}
  const Blob& take(std::size_t bytes) {
    if (at_ == parts_.size()) throw FrameError("the part of a tensor is missing");
    const Blob& part = parts_[at_++];
    if (part.bytes != bytes) throw FrameError(fmt::format("a part of {} bytes for a tensor of {}", part.bytes, bytes));
    return part;
  }
  void check_all_taken() const {
    if (at_ < parts_.size()) throw FrameError(fmt::format("{} parts too many", parts_.size() - at_));
  }

 private:
  const std::vector<Blob>& parts_;
  std::size_t at_ = 0;
};

Packed::Tensor parse_tensor(const Head::Tensor& tensor, TensorParts& parts, const FrameLimits& limits) {
  if (tensor.sizes_size() > most_dimensions) throw FrameError(fmt::format("a tensor of {} dimensions", tensor.sizes_size()));
  if (tensor.type() == undefined_type) {
    if (tensor.sizes_size() > 0) throw FrameError("an undefined tensor with sizes");
    return {undefined_type, {}, {}};
  }
  if (element_bytes(tensor.type()) == 0) throw FrameError(fmt::format("a tensor of type {} cannot travel", tensor.type()));
  const Blob& content = parts.take(content_bytes(tensor, limits));
  return {tensor.type(), {tensor.sizes().begin(), tensor.sizes().end()}, content};
}

}  // namespace

std::string frame_head(const Frame& frame) {
  Head head;
  head.set_version(frame_version);
  head.set_kind(static_cast<std::uint32_t>(frame.kind));
  head.set_about(frame.about);
  head.set_serial(frame.serial);
  head.mutable_numbers()->Assign(frame.content.numbers.begin(), frame.content.numbers.end());
  for (const std::string& text : frame.content.texts) head.add_texts(text);
  for (const Packed::Tensor& tensor : frame.content.tensors) {
    Head::Tensor& added = *head.add_tensors();
    added.set_type(tensor.type);
    added.mutable_sizes()->Assign(tensor.sizes.begin(), tensor.sizes.end());
  }
  return head.SerializeAsString();
}

Frame parse_frame(std::string_view bytes, const std::vector<Blob>& parts, const FrameLimits& limits) {
  Head head = parse_head(bytes, limits);
  check_version(head);
  Frame frame{kind_of(head), std::move(*head.mutable_about()), head.serial(), {}};
  frame.content.numbers.assign(head.numbers().begin(), head.numbers().end());
  frame.content.texts.assign(std::move_iterator(head.mutable_texts()->begin()), std::move_iterator(head.mutable_texts()->end()));
  frame.content.tensors.reserve(static_cast<std::size_t>(head.tensors_size()));
  TensorParts left(parts);
  for (const Head::Tensor& tensor : head.tensors()) frame.content.tensors.push_back(parse_tensor(tensor, left, limits));
  left.check_all_taken();
  // Unknown fields, and known ones written twice or at greater length than needed.
  if (frame_head(frame) != bytes) not_a_frame();
  return frame;
}

std::size_t element_bytes(int type) {
  switch (type) {
    case 0:   // uint8
    case 1:   // int8
    case 11:  // bool
      return 1;
    case 2:   // int16
    case 5:   // half
    case 15:  // bfloat16
      return 2;
    case 3:  // int32
    case 6:  // float
      return 4;
    case 4:  // int64
    case 7:  // double
      return 8;
    default:
      return 0;
  }
}

}  // namespace rubato
