#pragma once

#include "rubato/couplings/coupling.h"

/// The couplings that come along, in the order of `rubato list couplings`: one line each. `entry(NAME)` stands for the function
/// `coupling_detail::NAME`, which a file of the coupling's own defines.
#define RUBATO_COUPLINGS(entry)                                                                                                  \
  entry(none) entry(allreduce) entry(easgd) entry(async_easgd) entry(eamsgd) entry(downpour) entry(adownpour) entry(mvadownpour) \
      entry(mdownpour) entry(admm) entry(local_sgd) entry(lap)

// The registry may be made before `main`, so nothing here is a global object.

namespace rubato::coupling_detail {

#define RUBATO_DECLARE(name) CouplingEntry name();
RUBATO_COUPLINGS(RUBATO_DECLARE)
#undef RUBATO_DECLARE

/// Weight of the newest weights in a moving average: none, mvadownpour.
OptionSpec averaging_rate_option();

/// Where the methods of Zhang, Choromanska and LeCun are described.
inline constexpr const char* easgd_paper = "Zhang, Choromanska, LeCun 2015, arXiv 1412.6651";

}  // namespace rubato::coupling_detail
