#include "rubato/bootstrap/environment.h"

#include <gtest/gtest.h>

#include <map>

#include "rubato/core/error.h"

namespace rubato {
namespace bootstrap_environment_test {

using Variables = std::map<std::string, std::string>;

std::optional<ProcessPlace> place(const Variables& variables) {
  return place_of_process([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

/// The sentence with which `variables` are refused.
std::string refusal(const Variables& variables) {
  try {
    place(variables);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

const Variables torchrun = {
    {"RANK", "3"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}, {"MASTER_ADDR", "node1"}, {"MASTER_PORT", "29500"}};
const Variables slurm = {{"SLURM_PROCID", "2"},
                         {"SLURM_NTASKS", "8"},
                         {"SLURM_LOCALID", "0"},
                         {"SLURM_JOB_ID", "70123"},
                         {"SLURM_JOB_NODELIST", "n[003-007,9],m1"}};

TEST(Environment, says_nothing_when_no_starter_does) {
  EXPECT_FALSE(place({}));
  EXPECT_FALSE(place({{"MASTER_ADDR", "node1"}, {"RUBATO_KEYS", "keys"}}));
  EXPECT_FALSE(place({{"RANK", ""}}));
}

TEST(Environment, reads_torchrun) {
  EXPECT_EQ(place(torchrun),
            (ProcessPlace{
                .rank = 3, .world = 4, .local_rank = 1, .address = "node1", .port = 29500, .keys = "", .starter = "torchrun"}));
}

TEST(Environment, leaves_the_port_at_which_torchrun_listens_alone) {
  EXPECT_EQ(place(with(torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}}))->port, 29501);
  EXPECT_EQ(place(with(torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"MASTER_PORT", "65535"}}))->port, 65534);
  EXPECT_EQ(place(with(torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}}))->port, 29500);
}

TEST(Environment, reads_our_launcher) {
  const Variables worker = with(
      torchrun,
      {{"RUBATO_STARTED_BY", "launch"}, {"RUBATO_ROLE", "worker"}, {"RUBATO_INCARNATION", "2"}, {"RUBATO_KEYS", "/runs/a/keys"}});
  EXPECT_EQ(place(worker)->starter, "rubato");
  EXPECT_EQ(place(worker)->incarnation, 2);
  EXPECT_EQ(place(worker)->keys, "/runs/a/keys");
  EXPECT_EQ(place(worker)->rank, 3);
}

TEST(Environment, makes_the_coordinator_rank_minus_one_whatever_rank_says) {
  EXPECT_EQ(place(with(torchrun, {{"RUBATO_ROLE", "coordinator"}, {"RANK", "-1"}}))->rank, -1);
  EXPECT_EQ(place(with(torchrun, {{"RUBATO_ROLE", "coordinator"}, {"RANK", "0"}}))->rank, -1);
  EXPECT_EQ(place(with(slurm, {{"RUBATO_ROLE", "coordinator"}}))->rank, -1);
}

TEST(Environment, reads_slurm) {
  const ProcessPlace read = *place(slurm);
  EXPECT_EQ(read.starter, "slurm");
  EXPECT_EQ(read.rank, 2);
  EXPECT_EQ(read.world, 8);
  EXPECT_EQ(read.address, "n003");
  EXPECT_EQ(read.port, 15000 + 10123);
}

TEST(Environment, finds_the_first_host_of_a_node_list) {
  const auto first = [](const std::string& list) { return place(with(slurm, {{"SLURM_JOB_NODELIST", list}}))->address; };
  EXPECT_EQ(first("single"), "single");
  EXPECT_EQ(first("m1,n[003-007,9]"), "m1");
  EXPECT_EQ(first("n[7]"), "n7");
  EXPECT_EQ(first("n[9,003-007]"), "n9");
  EXPECT_EQ(first("rack[1-2]n[03-04]-ib,x"), "rack1n03-ib");
  for (const char* list : {"n[003", "n[]", ",n1", "n[,2]"}) {
    EXPECT_NE(refusal(with(slurm, {{"SLURM_JOB_NODELIST", list}})).find("SLURM_JOB_NODELIST"), std::string::npos) << list;
  }
}

TEST(Environment, prefers_a_named_coordinator_to_slurms_hosts) {
  const ProcessPlace read = *place(with(slurm, {{"MASTER_ADDR", "10.0.0.1"}, {"MASTER_PORT", "4000"}}));
  EXPECT_EQ(read.address, "10.0.0.1");
  EXPECT_EQ(read.port, 4000);
}

TEST(Environment, uses_the_node_that_launched_when_slurm_lists_none) {
  Variables variables = slurm;
  variables.erase("SLURM_JOB_NODELIST");
  EXPECT_NE(refusal(variables), "");
  EXPECT_EQ(place(with(variables, {{"SLURM_LAUNCH_NODE_IPADDR", "10.1.1.1"}}))->address, "10.1.1.1");
}

TEST(Environment, takes_no_batch_script_for_a_task) {
  EXPECT_FALSE(place({{"SLURM_PROCID", "0"}, {"SLURM_JOB_ID", "1"}, {"SLURM_JOB_NODELIST", "n1"}}));
}

TEST(Environment, reads_torchruns_variables_before_slurms) {
  EXPECT_EQ(place(with(slurm, torchrun))->rank, 3);
}

TEST(Environment, reads_openmpi) {
  const Variables one_node = {{"OMPI_COMM_WORLD_RANK", "1"},
                              {"OMPI_COMM_WORLD_SIZE", "2"},
                              {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                              {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  EXPECT_EQ(place(one_node),
            (ProcessPlace{.rank = 1, .world = 2, .local_rank = 1, .address = "127.0.0.1", .keys = "", .starter = "openmpi"}));
  const Variables two_nodes = with(one_node, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}});
  EXPECT_NE(refusal(two_nodes).find("MASTER_ADDR"), std::string::npos);
  EXPECT_EQ(place(with(two_nodes, {{"MASTER_ADDR", "node1"}}))->address, "node1");
}

TEST(Environment, refuses_what_is_incomplete) {
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    Variables variables = torchrun;
    variables.erase(name);
    EXPECT_NE(refusal(variables).find(name), std::string::npos) << name;
  }
  EXPECT_NE(refusal({{"RUBATO_ROLE", "coordinator"}}).find("WORLD_SIZE"), std::string::npos);
}

TEST(Environment, needs_no_endpoint_for_a_single_worker) {
  EXPECT_EQ(place({{"RANK", "0"}, {"WORLD_SIZE", "1"}})->world, 1);
}

TEST(Environment, refuses_numbers_that_are_none_or_out_of_range) {
  const Variables wrong[] = {{{"RANK", "4"}},
                             {{"RANK", "-1"}},
                             {{"RANK", "1x"}},
                             {{"WORLD_SIZE", "0"}},
                             {{"WORLD_SIZE", "99999999999999999999"}},
                             {{"LOCAL_RANK", "-1"}},
                             {{"MASTER_PORT", "65536"}},
                             {{"MASTER_PORT", "0"}},
                             {{"RUBATO_INCARNATION", "often"}},
                             {{"RUBATO_ROLE", "server"}}};
  for (const Variables& variables : wrong) {
    const auto& [name, value] = *variables.begin();
    const std::string sentence = refusal(with(torchrun, variables));
    EXPECT_NE(sentence.find(name + " is '" + value + "'"), std::string::npos) << name << "=" << value << ": " << sentence;
  }
  EXPECT_NE(refusal({{"RANK", "x"}}).find("RANK is 'x'"), std::string::npos) << "though others are missing, too";
}

}  // namespace bootstrap_environment_test
}  // namespace rubato
