// Whatever arrives from the network either parses to a frame that frame_head would have written, or is refused with FrameError.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "rubato/transport/frame.h"

namespace {

/// Counted for the standalone program.
std::size_t parsed = 0;

/// Takes the input apart: a length of one byte before each part; what is left is the head.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : left_(reinterpret_cast<const char*>(data), size) {}

  std::size_t number() {
    if (left_.empty()) return 0;
    const auto value = static_cast<std::uint8_t>(left_.front());
    left_.remove_prefix(1);
    return value;
  }

  std::vector<rubato::Blob> parts() {
    std::vector<rubato::Blob> parts(number() % 8);
    for (rubato::Blob& part : parts) {
      const std::string_view bytes = left_.substr(0, number());
      left_.remove_prefix(bytes.size());
      part = {nullptr, bytes.data(), bytes.size()};
    }
    return parts;
  }

  std::string_view rest() const { return left_; }

 private:
  std::string_view left_;
};

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "frame_fuzzer: %s\n", what);
  std::abort();
}

void check_tensors(const rubato::Frame& frame, std::vector<rubato::Blob> parts) {
  auto part = parts.begin();
  for (const auto& tensor : frame.content.tensors) {
    std::size_t bytes = rubato::element_bytes(tensor.type);
    for (const auto size : tensor.sizes) bytes *= static_cast<std::size_t>(size);
    check(tensor.content.bytes == bytes, "a tensor has other bytes than its sizes say");
    if (tensor.type != -1) check(part++->data == tensor.content.data, "a tensor is not the part that came with it");
  }
  check(part == parts.end(), "a part belongs to no tensor");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr rubato::FrameLimits limits{.head_bytes = 1 << 10, .tensor_bytes = 200, .tensors = 100};
  Input input(data, size);
  const std::vector<rubato::Blob> parts = input.parts();
  try {
    const rubato::Frame frame = rubato::parse_frame(input.rest(), parts, limits);
    ++parsed;
    check(rubato::frame_head(frame) == input.rest(), "a frame was parsed from another head than it has");
    check_tensors(frame, parts);
  } catch (const rubato::FrameError&) {
    return 0;
  }
  return 0;
}

#ifdef RUBATO_STANDALONE_FUZZER
#include "transport/random_frames.h"

namespace {

std::string input_of(const rubato::Frame& frame) {
  const std::vector<rubato::Blob> parts = rubato::test::parts_of(frame);
  std::string input(1, static_cast<char>(parts.size()));
  for (const rubato::Blob& part : parts) {
    const std::string bytes = rubato::test::bytes_of(part).substr(0, 255);
    input += static_cast<char>(bytes.size()) + bytes;
  }
  return input + rubato::frame_head(frame);
}

}  // namespace

/// frame_fuzzer [inputs [first seed]]
int main(int arguments, char** argument) {
  const std::uint64_t inputs = arguments > 1 ? std::strtoull(argument[1], nullptr, 10) : 100000;
  const std::uint64_t first = arguments > 2 ? std::strtoull(argument[2], nullptr, 10) : 0;
  for (std::uint64_t seed = first; seed < first + inputs; ++seed) {
    rubato::test::Dice dice(seed);
    std::string input = input_of(rubato::test::random_frame(dice));
    for (std::size_t left = dice.below(5); left > 0; --left) rubato::test::mutate(dice, input);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::printf("ok - %llu random frames, %zu of them parsed\n", static_cast<unsigned long long>(inputs), parsed);
}
#endif
