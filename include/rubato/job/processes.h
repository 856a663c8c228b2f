#pragma once

#include <optional>
#include <string>
#include <utility>

#include "rubato/config/options.h"
#include "rubato/job/job.h"
#include "rubato/transport/credentials.h"

namespace rubato {

/// Where this process stands in a job of several.
struct ProcessChoice {
  int rank = 0;             ///< of a worker, 0 .. world - 1; -1: the coordinator, which holds the centre and the run folder
  int world = 1;            ///< workers
  int incarnation = 0;      ///< how often this process has been started again
  std::string coordinator;  ///< endpoint that the coordinator binds to, "tcp://127.0.0.1:29400"
  std::string address;      ///< of this machine, as the other processes reach it
  bool curve = false;       ///< connections are encrypted, and peers known by their keys
  Credentials credentials;

  bool is_coordinator() const { return rank < 0; }
};

/// Sets the number of replicas or stages that `world` processes make, where `options` leave it open. Returns how many processes
/// share one replica. UsageError where the numbers do not fit.
int divide_among(TrainOptions& options, int world);

/// Whether workers may come, go and die without the others waiting: the coupling allows it, and each has a whole replica.
bool has_free_membership(const TrainOptions& options, int parts);

/// Whether those left finish a sum, or a round with the centre, without a worker that has died (fixed membership).
bool goes_on_without_the_dead(const TrainOptions& options, int parts);

/// Whether a resumed run of this coupling needs as many replicas as its checkpoint has.
bool keeps_replicas(const TrainOptions& options);

/// Of options that are for a job of several processes. UsageError where they cannot be used with this one.
void check_job(const TrainOptions& options, int parts);

/// Of "127.0.0.1:9100". UsageError.
std::pair<std::string, int> address_and_port(const std::string& text);

/// What process `choice` holds of a job whose replicas take `parts` processes each.
Placement placement_of(const ProcessChoice& choice, const TrainOptions& options, int parts);

/// Equal in all processes of a job: SHA-256 over what determines the run, and the version of rubato.
std::string digest_of(const TrainOptions& options);

}  // namespace rubato
