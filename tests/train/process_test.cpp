// What the process tells of an exception, and the exit code that goes with it.
#include "rubato/model/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <torch/torch.h>
#include <cstdint>

#include <filesystem>
#include <limits>
#include <new>
#include <stdexcept>
#include <system_error>
#include <vector>

namespace rubato {
namespace train_process_test {

using ::testing::HasSubstr;

template <class Action>
Failure failure_in(Action action) {
  try {
    action();
  } catch (const std::exception& error) {
    return failure_of(error);
  }
  return {ExitCode::ok, "nothing is wrong"};
}

void expect(const Failure& failure, ExitCode code, const std::string& part) {
  EXPECT_EQ(failure.code, code) << failure.sentence;
  EXPECT_THAT(failure.sentence, HasSubstr(part));
  EXPECT_EQ(failure.sentence.find('\n'), std::string::npos) << failure.sentence;
}

TEST(FailureOf, faults_of_rubato_are_not_wrong_usage) {
  expect(failure_in([] { throw std::logic_error("all roles wait"); }), ExitCode::internal, "all roles wait");
  expect(failure_in([] { throw std::bad_alloc(); }), ExitCode::internal, "out of memory");
  expect(failure_in([] { std::vector<int>().reserve(std::numeric_limits<std::size_t>::max()); }), ExitCode::internal,
         "out of memory");
  expect(failure_in([] {
           torch::zeros({2, 3}).matmul(torch::zeros({4, 5}));
         }),
         ExitCode::internal, "shapes cannot be multiplied");
  expect(failure_in([] { torch::empty({std::int64_t{1} << 50}); }), ExitCode::internal, "GB were asked for at once");
  expect(failure_in([] { throw std::system_error(EAGAIN, std::generic_category()); }), ExitCode::internal, "no more threads");
}

TEST(FailureOf, what_a_user_can_mend_keeps_its_code) {
  expect(failure_in([] { throw UsageError("--lr x"); }), ExitCode::usage, "--lr x");
  expect(failure_in([] { throw DataError("a.bin is cut off"); }), ExitCode::data, "a.bin is cut off");
  expect(failure_in([] { throw DivergedError("the loss is nan"); }), ExitCode::diverged, "the loss is nan");
  expect(failure_in([] { std::filesystem::create_directory("/proc/nothing"); }), ExitCode::data, "/proc/nothing: ");
}

}  // namespace train_process_test
}  // namespace rubato
