#include "rubato/runtimes/options.h"

#include "rubato/core/error.h"
#include "rubato/core/numbers.h"

namespace rubato {
namespace {

constexpr double longest_ms = 1e9;  // eleven days

}  // namespace

InjectedDelay parse_delay(const std::string& text) {
  const UsageError wrong(
      "--inject-delay '" + text +
      "' is not ROLE:MS or ROLE:LOW-HIGH with milliseconds from 0 to 1e9, for example forward-0:5 or ddg-1:0-20");
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) throw wrong;
  InjectedDelay delay{.role = text.substr(0, colon)};
  const std::string range = text.substr(colon + 1);
  const std::size_t dash = range.find('-');
  if (!read_number(range.substr(0, dash), delay.low_ms)) throw wrong;
  delay.high_ms = delay.low_ms;
  if (dash != std::string::npos && !read_number(range.substr(dash + 1), delay.high_ms)) throw wrong;
  if (!(delay.low_ms >= 0 && delay.high_ms >= delay.low_ms && delay.high_ms <= longest_ms)) throw wrong;
  return delay;
}

}  // namespace rubato
