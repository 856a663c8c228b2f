#include "rubato/membership/messages.h"

#include <cstdint>
#include <limits>

#include "membership.pb.h"

namespace rubato::membership {
namespace {

constexpr int most_members = 1 << 16;

// Writing.

void write(wire::Process& to, const ProcessId& process) {
  to.set_id(process.id);
  to.set_host(process.host);
  to.set_incarnation(process.incarnation);
}

void write(wire::Sum& to, const SumId& sum) {
  to.set_group(sum.group);
  to.set_begun(sum.begun);
  to.set_number(sum.number);
  to.set_version(sum.version);
}

void write(wire::Message& to, const Begin& begin) {
  auto& is = *to.mutable_begin();
  is.set_from(static_cast<std::uint32_t>(begin.from));
  is.set_term(begin.term);
  is.set_segment(begin.segment);
  is.set_begin(begin.begin);
  is.set_end(begin.end);
  is.set_version(begin.version);
  for (const std::int64_t member : begin.members) is.add_members(member);
  for (const Neighbour& neighbour : begin.neighbours) {
    auto& added = *is.add_neighbours();
    added.set_rank(neighbour.rank);
    added.set_endpoint(neighbour.endpoint);
  }
}

void write(wire::Message& to, const Abort& abort) {
  to.mutable_abort()->set_term(abort.term);
  to.mutable_abort()->set_segment(abort.segment);
}

void write(wire::Message& to, const Halt& halt) {
  auto& is = *to.mutable_halt();
  is.set_how(static_cast<std::uint32_t>(halt.how));
  is.set_term(halt.term);
  is.set_segment(halt.segment);
  is.set_step(halt.step);
}

void write(wire::Message& to, const Leave& leave) {
  to.mutable_leave()->set_code(leave.code);
  to.mutable_leave()->set_why(leave.why);
}

void write(wire::Message& to, const Members& members) {
  to.mutable_members()->set_version(members.version);
  for (const std::int64_t replica : members.replicas) to.mutable_members()->add_replicas(replica);
}

void write(wire::Message& to, const Found& found) {
  to.mutable_found()->set_key(found.key);
  to.mutable_found()->set_value(found.value);
}

void write(wire::Message& to, const GiveWeights&) {
  to.mutable_give_weights();
}

void write(wire::Message& to, const SayAgain&) {
  to.mutable_say_again();
}

void write(wire::Message& to, const Status& status) {
  auto& is = *to.mutable_status();
  is.set_serial(status.serial);
  write(*is.mutable_process(), status.process);
  is.set_phase(static_cast<std::uint32_t>(status.phase));
  is.set_term(status.term);
  is.set_segment(status.segment);
  is.set_step(status.step);
  is.set_holds(status.holds);
  is.set_stop_wanted(status.stop_wanted);
  is.set_version(status.version);
}

void write(wire::Message& to, const Finished& finished) {
  auto& is = *to.mutable_finished();
  write(*is.mutable_process(), finished.process);
  is.set_term(finished.term);
  is.set_segment(finished.segment);
  is.set_position(finished.position);
  is.set_digest(finished.digest);
}

void write(wire::Message& to, const Failed& failed) {
  write(*to.mutable_failed()->mutable_process(), failed.process);
  to.mutable_failed()->set_code(failed.code);
  to.mutable_failed()->set_sentence(failed.sentence);
}

void write(wire::Message& to, const Weights& weights) {
  write(*to.mutable_weights()->mutable_process(), weights.process);
  to.mutable_weights()->set_step(weights.step);
}

void write(wire::Message& to, const Left& left) {
  write(*to.mutable_left(), left.process);
}

void write(wire::Message& to, const Broken& broken) {
  to.set_broken(broken.version);
}

void write(wire::Message& to, const Put& put) {
  to.mutable_put()->set_key(put.key);
  to.mutable_put()->set_value(put.value);
}

void write(wire::Message& to, const Look& look) {
  to.set_look(look.key);
}

void write(wire::Message& to, const SumAsked& asked) {
  to.mutable_sum_asked()->set_member(asked.member);
  write(*to.mutable_sum_asked()->mutable_sum(), asked.sum);
}

void write(wire::Message& to, const SumAnswered& answered) {
  auto& is = *to.mutable_sum_answered();
  is.set_member(answered.member);
  write(*is.mutable_sum(), answered.sum);
  is.set_outcome(static_cast<std::uint32_t>(answered.outcome));
  is.set_parts(answered.parts);
  is.set_weight(answered.weight);
}

// Reading.

template <class T>
T one_of(std::uint32_t value, T last) {
  if (value > static_cast<std::uint32_t>(last)) throw MessageError("a message says what nobody knows");
  return static_cast<T>(value);
}

int small(std::int64_t value) {
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) {
    throw MessageError("a number is out of range");
  }
  return static_cast<int>(value);
}

template <class Repeated>
std::vector<std::int64_t> numbers(const Repeated& repeated) {
  if (repeated.size() > most_members) throw MessageError("a message names too many members");
  return {repeated.begin(), repeated.end()};
}

ProcessId read(const wire::Process& process) {
  return {process.id(), process.host(), small(process.incarnation())};
}

SumId read(const wire::Sum& sum) {
  return {sum.group(), sum.begun(), sum.number(), sum.version()};
}

Begin read(const wire::Begin& is) {
  Begin begin{
      one_of(is.from(), Source::centre), is.term(), is.segment(), is.begin(), is.end(), is.version(), numbers(is.members()), {}};
  if (is.neighbours_size() > most_members) throw MessageError("a message names too many neighbours");
  for (const wire::Neighbour& neighbour : is.neighbours()) {
    begin.neighbours.push_back({small(neighbour.rank()), neighbour.endpoint()});
  }
  return begin;
}

Status read(const wire::Status& is) {
  return {is.serial(), read(is.process()), one_of(is.phase(), Phase::leaving),
          is.term(),   is.segment(),       is.step(),
          is.holds(),  is.stop_wanted(),   is.version()};
}

SumAnswered read(const wire::SumAnswered& is) {
  return {is.member(), read(is.sum()), one_of(is.outcome(), SumOutcome::gone), small(is.parts()), is.weight()};
}

Message read(const wire::Message& message) {
  switch (message.is_case()) {
    case wire::Message::kBegin:
      return read(message.begin());
    case wire::Message::kAbort:
      return Abort{message.abort().term(), message.abort().segment()};
    case wire::Message::kHalt:
      return Halt{one_of(message.halt().how(), HaltHow::stop), message.halt().term(), message.halt().segment(),
                  message.halt().step()};
    case wire::Message::kLeave:
      return Leave{small(message.leave().code()), message.leave().why()};
    case wire::Message::kMembers:
      return Members{message.members().version(), numbers(message.members().replicas())};
    case wire::Message::kFound:
      return Found{message.found().key(), message.found().value()};
    case wire::Message::kGiveWeights:
      return GiveWeights{};
    case wire::Message::kSayAgain:
      return SayAgain{};
    case wire::Message::kStatus:
      return read(message.status());
    case wire::Message::kFinished:
      return Finished{read(message.finished().process()), message.finished().term(), message.finished().segment(),
                      message.finished().position(), message.finished().digest()};
    case wire::Message::kFailed:
      return Failed{read(message.failed().process()), small(message.failed().code()), message.failed().sentence()};
    case wire::Message::kWeights:
      return Weights{read(message.weights().process()), message.weights().step()};
    case wire::Message::kLeft:
      return Left{read(message.left())};
    case wire::Message::kBroken:
      return Broken{message.broken()};
    case wire::Message::kPut:
      return Put{message.put().key(), message.put().value()};
    case wire::Message::kLook:
      return Look{message.look()};
    case wire::Message::kSumAsked:
      return SumAsked{message.sum_asked().member(), read(message.sum_asked().sum())};
    case wire::Message::kSumAnswered:
      return read(message.sum_answered());
    case wire::Message::IS_NOT_SET:
      break;
  }
  throw MessageError("a message that nobody knows");
}

}  // namespace

std::string encode(const Message& message) {
  wire::Message out;
  std::visit([&](const auto& is) { write(out, is); }, message);
  return out.SerializeAsString();
}

Message decode(std::string_view bytes) {
  wire::Message in;
  if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) throw MessageError("a message that cannot be read");
  return read(in);
}

}  // namespace rubato::membership
