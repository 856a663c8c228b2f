#include "rubato/core/error.h"
#include "rubato/runtimes/options.h"

namespace rubato {

std::unique_ptr<Runtime> make_simulator(const SimulatedPlatform&, const RuntimeOptions&) {
  throw UsageError("this rubato was built without the simulator: install libsimgrid-dev and build again");
}

}  // namespace rubato
