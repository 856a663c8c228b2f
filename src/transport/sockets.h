#pragma once

#include <optional>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "rubato/transport/frame.h"

namespace rubato {

/// The parts of one ZeroMQ message.
using Parts = std::vector<zmq::message_t>;

/// Head and tensors; tensors are not copied, their owners live until ZeroMQ has sent them.
Parts parts_of(const Frame& frame);

/// Sends `to` (if any) and `parts`; false when the socket cannot take them now.
bool send_parts(zmq::socket_t& socket, const std::string* to, Parts parts);

/// The next message, if there is one; `most` parts at most, what comes after them is thrown away and `cut` set.
std::optional<Parts> receive_parts(zmq::socket_t& socket, std::size_t most, bool& cut);

/// The frame that begins at `parts[first]`. FrameError as parse_frame.
Frame frame_of(Parts parts, std::size_t first, const FrameLimits& limits);

std::size_t bytes_of(const Parts& parts);

}  // namespace rubato
