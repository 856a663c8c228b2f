#pragma once

#include <string>
#include <vector>

namespace rubato {

/// One line of `rubato list KIND`.
struct Listed {
  std::string name, summary;
};

/// "schedules", "couplings", "models", "datasets", "optimizers".
const std::vector<std::string>& listable();
/// The catalogue of `kind`; UsageError for an unknown one.
std::vector<Listed> catalogue(const std::string& kind);

}  // namespace rubato
