#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rubato/context/packed.h"

namespace rubato {

/// Orders of the coordinator (`Frame::about` of a frame of kind order) and reports of workers (kind report).
namespace order {
inline constexpr const char* begin = "begin";      ///< a segment: BeginOrder
inline constexpr const char* abort = "abort";      ///< stop the segment and begin the term that the frame's serial names
inline constexpr const char* weights = "weights";  ///< say what the replica's weights are
inline constexpr const char* hold = "hold";        ///< take no more batches and say how far the replica is
inline constexpr const char* end_at = "end at";    ///< numbers: step; go on up to there
inline constexpr const char* stop = "stop";        ///< end the segment where it is
inline constexpr const char* leave = "leave";      ///< numbers: exit code; texts: why. The job is over
inline constexpr const char* meet = "meet";        ///< at another worker: numbers: rank; texts: endpoint
inline constexpr const char* members = "members";  ///< of collectives: numbers: group version, replicas that are left
inline constexpr const char* found = "found";      ///< what a member has put at the rendezvous; texts: key; bytes
inline constexpr const char* asked = "sum?";       ///< another worker asks: numbers: its rank, SumQuestion; texts: group
inline constexpr const char* sum = "sum";          ///< the answer: numbers: SumQuestion, 1 if there is one; texts: group; tensors
}  // namespace order

namespace report {
inline constexpr const char* finished = "finished";  ///< FinishedReport
inline constexpr const char* aborted = "aborted";    ///< serial: the new term
inline constexpr const char* failed = "failed";      ///< numbers: exit code; texts: sentence
inline constexpr const char* weights = "weights";    ///< sets of all blocks
inline constexpr const char* held = "held";          ///< numbers: index of the next batch
inline constexpr const char* left = "left";          ///< this worker knows that the job is over
inline constexpr const char* stop = "stop";          ///< somebody wants the job to stop
inline constexpr const char* ask = "sum?";           ///< for all other workers: numbers: SumQuestion; texts: group
inline constexpr const char* sum = "sum";            ///< for one of them: as order::sum, with its rank before
inline constexpr const char* broken = "broken";      ///< connections of a sum; numbers: group version
inline constexpr const char* put = "put";            ///< for the rendezvous of collectives; texts: key; bytes
inline constexpr const char* look = "look";          ///< for what another has put there; texts: key
}  // namespace report

struct BeginOrder {
  enum Start {
    as_it_is,  ///< the worker has what it needs
    part,      ///< from the state in the order
    weights,   ///< from the weights in the order
    join,      ///< from the centre
  } start = as_it_is;
  std::int64_t segment = 0, begin = 0, end = 0;
  std::int64_t group_version = 0;     ///< of the members
  std::vector<std::int64_t> members;  ///< replicas that take part in collectives; empty: there are none
  Packed state;                       ///< part: bytes; weights: sets

  Packed pack() const;
  static BeginOrder unpack(const Packed& packed);
};

struct FinishedReport {
  std::int64_t segment = 0, position = 0;
  std::string digest;
  Packed state;  ///< bytes of the part, where the coordinator keeps it
  Packed beat;   ///< the last one
  Packed pack() const;
  static FinishedReport unpack(const Packed& packed);
};

}  // namespace rubato
