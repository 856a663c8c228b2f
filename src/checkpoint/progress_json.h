#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "rubato/checkpoint/checkpoint.h"

namespace rubato {

/// The content of state.json but for the list of files and the checksum.
nlohmann::ordered_json to_json(const Progress& progress);

/// The reverse. DataError, beginning with `file`, for a field that is missing, of another type, or out of its range.
Progress progress_from(const nlohmann::ordered_json& json, const std::string& file);

/// The text of state.json: `json` and the SHA-256 of all that it says.
std::string sealed(nlohmann::ordered_json json);

/// What `sealed` made, without the checksum. DataError, beginning with `file`, where it says something else than it did, or has
/// another format. Checkpoints of earlier versions have no checksum: for them it takes what is there.
nlohmann::ordered_json unsealed(const std::string& text, const std::string& file);

}  // namespace rubato
