#pragma once

// For authors of schedules, couplings, optimizers, models and data sets: what these are made of, and where they are registered.

#include "rubato/rubato.h"

#include "rubato/context/context.h"
#include "rubato/context/last_to_leave.h"
#include "rubato/context/ordered_mutex.h"
#include "rubato/context/runtime.h"
#include "rubato/core/option_values.h"
#include "rubato/core/random.h"
#include "rubato/couplings/coupling.h"
#include "rubato/data/batch_source.h"
#include "rubato/data/dataset.h"
#include "rubato/model/dropout.h"
#include "rubato/model/model.h"
#include "rubato/model/optimizer.h"
#include "rubato/model/recycler.h"
#include "rubato/model/stage.h"
#include "rubato/model/weight_store.h"
#include "rubato/replica/hooks.h"
#include "rubato/replica/replica.h"
#include "rubato/runtimes/options.h"
#include "rubato/schedules/schedule.h"
#include "rubato/wire/portable.h"
#include "rubato/wire/tensor_sum.h"
#include "rubato/zoo/zoo.h"
