#pragma once

#include <string>
#include <vector>
#include <zmq.hpp>

#include "rubato/transport/credentials.h"

namespace rubato::test {

/// The parts of what is sent in one message.
using Speech = std::vector<std::string>;

/// Whether somebody who speaks ZeroMQ connected to `endpoint`: with the wrong credentials, or none; `number` chooses among
/// several.
bool intrude(zmq::context_t& context, const std::string& endpoint, const Credentials& credentials, int number);

/// Whether somebody with the job's token connected to `endpoint` and said `speech`.
bool speak(zmq::context_t& context, const std::string& endpoint, const Credentials& credentials, const Speech& speech,
           const std::string& identity = "");

/// What no process of a job says; `number` chooses among several.
Speech hostile_speech(int number);

}  // namespace rubato::test
