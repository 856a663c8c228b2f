#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "rubato/checkpoint/checkpoint.h"
#include "rubato/context/runtime.h"
#include "rubato/job/plan.h"

namespace rubato {

/// UsageError when `folder`, where a new run shall be written, holds something else than a run: data, sources, documents.
void refuse_foreign_folder(const std::filesystem::path& folder);

/// DataError when a folder lies where a run writes a file.
void check_names_are_free(const std::filesystem::path& folder);

/// DataError when the summary in `folder` tells of a run that has ended further than `found`, the newest checkpoint, though none
/// was passed over: to go on from there would put the figures of a shorter run in its place. Null: there is no checkpoint.
void check_nothing_is_lost(const std::filesystem::path& folder, const CheckpointFolder::Found* found);

/// One sentence for each delay of a role that is not among `roles`. It is no error: a run that goes on with fewer replicas has
/// fewer.
std::vector<std::string> delays_of_nobody(const Plan& plan, const std::vector<Role>& roles);

}  // namespace rubato
