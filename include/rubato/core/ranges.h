#pragma once

#include <cstdint>
#include <string_view>

namespace rubato {

/// UsageError unless `value` is from `low` to `high`, which may be infinite.
void check_whole_range(std::string_view flag, std::int64_t value, double low, double high);

}  // namespace rubato
