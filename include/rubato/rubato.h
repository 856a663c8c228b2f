#pragma once

// For programs that train: options, plan, trainer, evaluation, lists of what there is, errors, and the command line. With
// `rubato/extend.h`, for methods of one's own, it is all that is installed.

#include "rubato/app/command_line.h"
#include "rubato/config/catalogue.h"
#include "rubato/config/options.h"
#include "rubato/core/build_info.h"
#include "rubato/core/error.h"
#include "rubato/job/plan.h"
#include "rubato/model/process.h"
#include "rubato/observe/evaluate.h"
#include "rubato/train/trainer.h"
