// What couplings are equal to, and what does not change their bits.
#include <cstdint>

#include <gtest/gtest.h>

#include "rubato/core/error.h"
#include "support/herd.h"

namespace rubato {
namespace couplings_limits_test {

using test::Herd;

std::vector<torch::Tensor> weights_of(const WeightStore& store) {
  std::vector<torch::Tensor> all;
  for (int block = 0; block < store.block_count(); ++block) {
    for (const torch::Tensor& tensor : store.result(block).parameters->tensors) all.push_back(tensor.clone());
  }
  return all;
}

TEST(Allreduce, of_p_replicas_with_batch_B_over_p_is_serial_with_batch_B) {
  for (const int replicas : {1, 2, 4}) {
    Herd herd(test::small_model("mlp", 1, 0.0),
              {.coupling = {.name = "allreduce", .replicas = replicas, .values = {{"bucket-kib", 0.0625}}},
               .store = test::sgd(),
               .batch_size = 16 / replicas,
               .shard = true});
    herd.run_on_threads(12, {.delays = {{"r0/worker-0", 0, 1}}});
    test::Lab serial(test::small_model("mlp", 1, 0.0), {.schedule = {.name = "serial"}, .store = test::sgd(), .batch_size = 16});
    serial.run_on_threads(12);
    const auto ours = weights_of(herd.job.store(0)), theirs = weights_of(serial.store);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_TRUE(torch::allclose(ours[i], theirs[i], 1e-4, 1e-6)) << replicas << " replicas, tensor " << i;
    }
  }
}

TEST(Allreduce, keeps_all_replicas_equal_whatever_the_bucket) {
  std::string first;
  for (const double kib : {1.0 / 1024, 0.2, 1048576.0}) {
    Herd herd(test::small_model("mlp"), {.schedule = {.name = "ddg", .cuts = {1, 2}},
                                         .coupling = {.name = "allreduce", .replicas = 3, .values = {{"bucket-kib", kib}}},
                                         .store = test::sgd()});
    herd.run_on_threads(10);
    for (int i = 1; i < 3; ++i) EXPECT_EQ(herd.job.store(i).digest(), herd.job.store(0).digest());
    if (first.empty()) first = herd.job.digest();
    EXPECT_EQ(herd.job.digest(), first);
  }
}

TEST(LocalSgd, of_period_1_is_allreduce_for_plain_sgd) {
  const auto weights = [](const char* name) {
    Herd herd(test::small_model("mlp"), {.coupling = {.name = name, .replicas = 3, .period = 1}, .store = test::sgd(0.05, 0, 0)});
    herd.run_on_threads(8);
    return weights_of(herd.job.store(1));
  };
  const auto local = weights("local-sgd"), reduced = weights("allreduce");
  for (std::size_t i = 0; i < local.size(); ++i) EXPECT_TRUE(torch::allclose(local[i], reduced[i], 1e-4, 1e-6));
}

TEST(LocalSgd, leaves_all_replicas_equal_at_the_end_of_a_period_and_keeps_the_sum) {
  Herd herd(test::whole_drift(), {.coupling = {.name = "local-sgd", .replicas = 4, .period = 5}, .store = test::sgd(1, 0, 0)});
  herd.run_on_threads(10);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(torch::equal(herd.weight(i), -test::sum_of_drifts(4, 10) / 4));
}

TEST(Lap, adds_differences_so_that_no_step_taken_meanwhile_is_lost) {
  for (const int workers : {1, 3}) {
    Herd herd(test::whole_drift(), {.schedule = {.name = "hogwild", .values = {{"workers", workers}}},
                                    .coupling = {.name = "lap", .replicas = 4, .period = 2},
                                    .store = test::sgd(1, 0, 0)});
    herd.run_on_threads(24, {.delays = {{"r1/worker-0", 0, 1}, {"r2/averager-0", 0, 2}}});
    torch::Tensor sum = torch::zeros({4}, torch::kFloat64);
    for (int i = 0; i < 4; ++i) sum += herd.weight(i);
    EXPECT_TRUE(torch::equal(sum, -test::sum_of_drifts(4, 24))) << workers << " workers";
  }
}

std::vector<std::string> fixed_couplings() {
  std::vector<std::string> names;
  for (const CouplingEntry& entry : couplings()) {
    if (entry.fixed_protocol && entry.name != "none") names.push_back(entry.name);
  }
  return names;
}

class FixedCoupling : public ::testing::TestWithParam<std::string> {
 protected:
  static Herd herd(const std::string& schedule) {
    ScheduleOptions options{.name = schedule};
    if (schedule == "ddg") options.cuts = {2, 4};
    return Herd(test::norm_and_dropout_model(),
                {.schedule = options,
                 .coupling = {.name = GetParam(), .replicas = 3, .period = 2, .values = {{"moving-rate", 0.2}}},
                 .store = test::sgd(),
                 .shard = true});
  }
};

TEST_P(FixedCoupling, gives_the_same_bits_whatever_the_timing_and_the_runtime) {
  for (const std::string schedule : {"serial", "ddg"}) {
    Herd calm = herd(schedule), jittery = herd(schedule), simulated = herd(schedule);
    calm.run_on_threads(9);
    const std::string role = schedule == "serial" ? "worker-0" : "ddg-1";
    jittery.run_on_threads(9, {.delays = {{"r0/" + role, 0, 2}, {"r2/" + role, 0, 3}, {"centre", 0, 2}}});
    EXPECT_EQ(calm.job.digest(), jittery.job.digest()) << schedule;
    if (!test::has_simulator()) continue;
    simulated.run(*make_simulator({.hosts = 3}, {}), 0, 9);
    EXPECT_EQ(calm.job.digest(), simulated.job.digest()) << schedule;
  }
}

TEST_P(FixedCoupling, goes_on_from_a_checkpoint_as_if_never_stopped) {
  for (const std::string schedule : {"serial", "ddg"}) {
    Herd whole = herd(schedule), first = herd(schedule), second = herd(schedule);
    whole.run_on_threads(10);
    first.run_on_threads(5);
    std::stringstream bytes;
    {
      torch::serialize::OutputArchive archive;
      first.job.save(archive);
      archive.save_to(bytes);
    }
    torch::serialize::InputArchive archive;
    archive.load_from(bytes);
    second.job.load(archive);
    second.run(*make_thread_runtime({}), 5, 10);
    EXPECT_EQ(second.job.digest(), whole.job.digest()) << schedule;
    EXPECT_EQ(second.job.coupling().evaluation_weights().digest(), whole.job.coupling().evaluation_weights().digest())
        << schedule;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FixedCoupling, ::testing::ValuesIn(fixed_couplings()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(Job, stops_all_replicas_at_the_same_step) {
  Herd herd(test::small_model("mlp"), {.coupling = {.name = "allreduce", .replicas = 3}, .store = test::sgd()});
  herd.job.open(0, 1'000'000);
  std::vector<Role> roles = herd.job.roles();
  roles.push_back({.name = "stopper", .run = [&](Context& me) {
                     while (herd.reports.losses().size() < 20) me.sleep(1e-3);
                     herd.job.stop();
                   }});
  make_thread_runtime({})->run(roles);
  EXPECT_LT(herd.job.position(), 1'000'000);
  EXPECT_EQ(static_cast<std::int64_t>(herd.reports.losses().size()), 3 * herd.job.position());
  for (int i = 1; i < 3; ++i) EXPECT_EQ(herd.job.store(i).digest(), herd.job.store(0).digest());
}

TEST(Job, a_failure_in_one_role_ends_all_others_with_its_reason) {
  for (const CouplingEntry& entry : couplings()) {
    Herd herd(test::small_model("mlp"), {.coupling = {.name = entry.name,
                                                      .replicas = entry.name == "none" ? 1 : 3,
                                                      .period = 1,
                                                      .values = {{"moving-rate", 0.1}}},
                                         .store = test::sgd()});
    herd.job.open(0, 1'000'000);
    std::vector<Role> roles = herd.job.roles();
    roles.push_back({.name = "saboteur", .run = [&](Context& me) {
                       while (herd.reports.losses().size() < 5) me.sleep(1e-3);
                       throw DataError("the disk is gone");
                     }});
    EXPECT_THROW(make_thread_runtime({})->run(roles), DataError) << entry.name;
  }
}

TEST(Couplings, unknown_names_and_impossible_numbers_are_refused_with_the_bound) {
  EXPECT_THROW(find_coupling("easdg"), UsageError);
  const auto reason = [](const CouplingOptions& options, double rate) -> std::string {
    try {
      check(options, rate);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(reason({.name = "async-easgd", .replicas = 4, .values = {{"moving-rate", 0.99}}}, 0.1)
                .find("0.9744 = (4 - 2 lr) / (4 - lr)"),
            std::string::npos);
  EXPECT_EQ(reason({.name = "async-easgd", .replicas = 4, .values = {{"moving-rate", 0.97}}}, 0.1), "");
  EXPECT_NE(reason({.name = "easgd", .replicas = 4, .values = {{"moving-rate", 0.5}}}, 0.1).find("(4 - 2 lr) / (2 + 2 p - lr p)"),
            std::string::npos);
  EXPECT_EQ(reason({.name = "easgd", .replicas = 4, .values = {{"moving-rate", 0.39}}}, 0.1), "");
  EXPECT_NE(reason({.name = "downpour", .replicas = 2, .period = 0}, 0.1).find("--period 0"), std::string::npos);
  EXPECT_NE(reason({.name = "async-easgd", .replicas = 2, .values = {{"moving-rate", -0.1}}}, 0.1), "");
  EXPECT_NE(reason({.name = "admm", .replicas = 2, .values = {{"penalty", 0}}}, 0.1), "");
}

}  // namespace couplings_limits_test
}  // namespace rubato
