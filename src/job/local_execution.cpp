#include "rubato/job/execution.h"

#include <cstdint>

namespace rubato {
namespace {

class LocalExecution final : public Execution {
 public:
  LocalExecution(Job& job, std::unique_ptr<Runtime> runtime) : job_(job), runtime_(std::move(runtime)) {}

  std::int64_t run(std::int64_t begin, std::int64_t end) override {
    job_.open(begin, end);
    if (stopped_) job_.stop();
    runtime_->run(job_.roles(), job_.units());
    return job_.position();
  }
  void stop() override {
    stopped_ = true;
    job_.stop();
  }
  double now() const override { return runtime_->now(); }
  const char* kind() const override { return runtime_->kind(); }
  StalenessCount staleness(int block) const override { return job_.staleness(block); }
  std::string digest() const override { return job_.digest(); }

 private:
  Job& job_;
  std::unique_ptr<Runtime> runtime_;
  std::atomic<bool> stopped_{false};
};

}  // namespace

std::unique_ptr<Execution> make_local_execution(Job& job, std::unique_ptr<Runtime> runtime) {
  return std::make_unique<LocalExecution>(job, std::move(runtime));
}

}  // namespace rubato
