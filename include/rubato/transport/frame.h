#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "rubato/context/packed.h"

namespace rubato {

/// What processes of a job say to each other.
enum class FrameKind : std::uint8_t {
  hello = 1,  ///< to the coordinator or a neighbour: who I am, equal configuration, where I listen
  welcome,    ///< to a worker: you belong
  who,        ///< to somebody unknown: say hello
  refused,    ///< to somebody who does not belong, with the reason
  beat,       ///< I am alive
  message,    ///< of a role to a channel
  taken,      ///< a message of a channel has been taken out
  listens,    ///< a channel is received here
  order,      ///< coordinator to worker
  report,     ///< worker to coordinator, launcher to coordinator
};

/// One frame is one ZeroMQ message: a head (frame.proto) and one part for each tensor with content.
struct Frame {
  FrameKind kind = FrameKind::beat;
  std::string about;        ///< a channel, or which order or report
  std::int64_t serial = 0;  ///< of the segment or request it belongs to
  Packed content;
};

struct FrameError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr std::uint32_t frame_version = 1;

/// What a receiver takes. Everything above is refused before memory is taken for it.
struct FrameLimits {
  std::size_t head_bytes = std::size_t{1} << 22;
  std::size_t tensor_bytes = std::size_t{1} << 30;  ///< of one tensor
  std::size_t tensors = std::size_t{1} << 16;
};

/// The first part of a frame.
std::string frame_head(const Frame& frame);

/// The reverse: `head` and the parts that followed it. FrameError, with what is wrong, for anything that `frame_head` would not
/// have written: another version, unknown kinds, sizes that are negative, overflow, exceed `limits` or differ from the part's
/// length, parts too many or too few.
Frame parse_frame(std::string_view head, const std::vector<Blob>& parts, const FrameLimits& limits);

/// Bytes of one element of libtorch's scalar type `type`; 0 where it cannot travel.
std::size_t element_bytes(int type);

}  // namespace rubato
