#pragma once

#include <exception>

#include "rubato/core/error.h"
#include "rubato/job/plan.h"
#include "rubato/membership/coordinator_machine.h"
#include "rubato/model/process.h"

namespace rubato {

/// What the plan of a job of several processes says about its membership.
membership::GroupOptions group_options(const Plan& plan);

/// Puts `message` into a frame's content, beside what travels with it, and takes it out again. PackError
void pack_message(Packed& content, const membership::Message& message);
membership::Message unpack_message(Packed& content);

/// An exception as the exit code and the sentence that other processes are told.
Failure failure_of(const std::exception_ptr& failure);

}  // namespace rubato
