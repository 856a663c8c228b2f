#pragma once

namespace rubato {

/// First record of every recording; another number when its meaning changes.
inline constexpr const char* recording_header = "rubato recording 1";

}  // namespace rubato
