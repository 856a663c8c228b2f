// What a job of several processes says about itself: as JSON, to people.
#include "rubato/monitor/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "rubato/core/error.h"

namespace rubato {
namespace monitor_status_test {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

WorkerStatus alive(int rank, double rate) {
  return {.rank = rank, .host = "a", .pid = 100 + rank, .state = "alive", .samples_per_second = rate};
}

JobStatus everything() {
  JobStatus job{.time = 1700000000.25,
                .state = "running",
                .run = "runs/a b",
                .schedule = "ddg",
                .coupling = "async-easgd",
                .step = 120,
                .total_steps = 400,
                .train_loss = 0.5123,
                .test_accuracy = 91.25,
                .coordinator = {.pid = 7, .host = "h", .incarnation = 2, .rebuilt_from = "checkpoint step 120"},
                .deaths = 3,
                .joins = 2,
                .refused = 5,
                .refused_reasons = {{"wrong token", 4}, {"other \"job\"", 1}},
                .last_refused = "10.0.0.9: wrong token"};
  job.workers = {{.rank = 0,
                  .stage = 1,
                  .host = "node-1",
                  .pid = 4242,
                  .incarnation = 1,
                  .state = "alive",
                  .step = 121,
                  .steps_behind = 9,
                  .samples = std::int64_t{1} << 60,
                  .samples_per_second = 1234.5,
                  .loss = 0.75,
                  .staleness_mean = 1.5,
                  .staleness_max = 4,
                  .waiting_seconds = 12.5,
                  .waiting_share = 0.125,
                  .bytes_sent = 12'300'000,
                  .bytes_received = 999,
                  .exchanges = 40,
                  .exchanges_skipped = 6,
                  .silent_seconds = 0.5,
                  .longest_wait_seconds = 75},
                 {.rank = 1, .state = "missing"}};
  return job;
}

std::string line_with(const std::string& text, const std::string& part) {
  const std::size_t at = text.find(part);
  if (at == std::string::npos) return "";
  const std::size_t begin = text.rfind('\n', at) + 1;
  return text.substr(begin, text.find('\n', at) - begin);
}

/// The row of worker `rank`: rows of workers follow the line of titles.
std::string row(const std::string& table, int rank) {
  std::size_t at = table.find('\n', table.find("worker  "));
  for (int i = 0; i < rank; ++i) at = table.find('\n', at + 1);
  return table.substr(at + 1, table.find('\n', at + 1) - at - 1);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(StatusJson, gives_back_everything_and_nothing) {
  EXPECT_EQ(status_from_json(to_json(everything()), "s"), everything());
  EXPECT_EQ(status_from_json(to_json(JobStatus{}), "s"), JobStatus{});
}

TEST(StatusJson, a_loss_that_is_not_finite_is_none_and_bytes_of_strangers_do_not_break_it) {
  JobStatus job = everything();
  job.train_loss = std::numeric_limits<double>::quiet_NaN();
  job.last_refused = "\xff\xfe\x01\n\"";
  const JobStatus read = status_from_json(to_json(job), "s");
  EXPECT_FALSE(read.train_loss.has_value());
  EXPECT_THAT(read.last_refused, HasSubstr("\n\""));
  EXPECT_EQ(read.workers, job.workers);
}

TEST(StatusJson, malformed_texts_are_refused_in_a_sentence_that_names_file_and_field) {
  const std::string good = to_json(everything());
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "parse error"},
      {good.substr(0, good.size() / 2), "parse error"},
      {"[]", "not a JSON object"},
      {"{}", "'time' is missing"},
      {replaced(good, "\"step\": 120", "\"step\": 1.5"), "'step' is not a whole number"},
      {replaced(good, "\"step\": 120", "\"step\": true"), "'step' is not a whole number"},
      {replaced(good, "\"step\": 120", "\"step\": 9223372036854775808"), "'step' is out of range"},
      {replaced(good, "\"pid\": 7", "\"pid\": \"7\""), "coordinator: 'pid' is not a whole number"},
      {replaced(good, "\"stage\": 1", "\"stage\": -4294967296"), "worker 0 of the list: 'stage' is out of range"},
      {replaced(good, "\"loss\": 0.75", "\"loss\": \"low\""), "worker 0 of the list: 'loss' is not a number"},
      {replaced(good, "\"state\": \"running\"", "\"state\": \"runing\""), "unknown state 'runing'"},
      {replaced(good, "\"state\": \"missing\"", "\"state\": \"asleep\""), "worker 1 has the unknown state 'asleep'"},
      {replaced(good, "\"wrong token\": 4", "\"wrong token\": []"), "'refused_reasons' is not a whole number"},
      {replaced(good, "\"coupling\": \"async-easgd\"", "\"coupling\": 3"), "'coupling' is not a text"},
      {replaced(good, "\"workers\": [", "\"workers\": 1, \"x\": ["), "'workers' is not a list"},
      {replaced(good, "\"workers\": [", "\"workers\": [3,"), "worker 0 of the list: it is not an object"},
  };
  for (const auto& [text, part] : cases) {
    try {
      status_from_json(text, "runs/a/status.json");
      ADD_FAILURE() << "taken: " << part;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("status runs/a/status.json: "), HasSubstr(part), Not(HasSubstr("\n"))));
    }
  }
}

TEST(StatusTable, says_all_there_is_in_human_units) {
  const std::string table = status_table(everything(), 1700000001.45);
  EXPECT_EQ(table.substr(0, table.find('\n')),
            "running  step 120/400 (30.0 %)  loss 0.5123  accuracy 91.25 %  ddg, async-easgd  as of 1.2 s ago");
  for (const char* part :
       {"node-1", "4242", "1234.5", "1.5/4", "12.5 %", "12.3 MB", "999 B", "40 (6 skipped)", "1:15 min", "0.5 s ago"}) {
    EXPECT_THAT(row(table, 0), HasSubstr(part));
  }
  EXPECT_THAT(row(table, 1), AllOf(HasSubstr("missing"), HasSubstr("never")));
  EXPECT_THAT(table, HasSubstr("coordinator: h, process 7, restarts 2, rebuilt from checkpoint step 120\n"));
  EXPECT_THAT(table, HasSubstr("deaths 3, joins 2, refused connections 5 (other \"job\": 1, wrong token: 4); the last one: "
                               "10.0.0.9: wrong token\n"));
}

TEST(StatusTable, columns_are_aligned) {
  const std::string table = status_table(everything(), 1700000001);
  const std::string titles = line_with(table, "worker  ");
  EXPECT_EQ(titles.size(), row(table, 0).size());
  EXPECT_EQ(titles.size(), row(table, 1).size());
  EXPECT_EQ(titles.find("state") + 5, row(table, 1).find("missing") + 7);
}

TEST(StatusTable, has_stages_only_where_there_are_some) {
  JobStatus job;
  job.workers = {alive(0, 1)};
  EXPECT_THAT(status_table(job, 0), Not(HasSubstr("stage")));
  job.workers[0].stage = 0;
  EXPECT_THAT(status_table(job, 0), HasSubstr("stage"));
}

TEST(StatusTable, marks_workers_below_0_7_of_the_median_of_those_alive) {
  JobStatus job;
  job.workers = {alive(0, 100), alive(1, 69), alive(2, 71), alive(3, 100), alive(4, 100)};
  for (int rank = 5; rank < 10; ++rank) job.workers.push_back({.rank = rank, .state = "dead"});
  const std::string table = status_table(job, 0);
  for (int rank = 0; rank < 10; ++rank) EXPECT_EQ(row(table, rank).ends_with("slow"), rank == 1) << table;
}

TEST(StatusTable, the_median_of_an_even_number_lies_between_the_middle_two) {
  JobStatus job;
  job.workers = {alive(0, 100), alive(1, 50)};  // 50 < 0.7 x 75
  const std::string table = status_table(job, 0);
  EXPECT_FALSE(row(table, 0).ends_with("slow"));
  EXPECT_TRUE(row(table, 1).ends_with("slow"));
}

TEST(StatusTable, warns_of_a_coordinator_that_stopped_writing_while_the_job_runs) {
  JobStatus job = everything();
  EXPECT_THAT(status_table(job, job.time + 4.9), Not(HasSubstr("warning")));
  EXPECT_EQ(line_with(status_table(job, job.time + 12), "warning"),
            "warning: the coordinator has not written for 12 s: it may be dead; `rubato launch --attach runs/a b` watches the "
            "job again");
  job.state = "done";
  EXPECT_THAT(status_table(job, job.time + 12), Not(HasSubstr("warning")));
}

TEST(StatusTable, a_clock_behind_the_coordinator_s_and_a_job_without_anything_do_no_harm) {
  JobStatus job;
  job.time = 100;
  EXPECT_THAT(status_table(job, 90), AllOf(HasSubstr("as of 0.0 s ago"), HasSubstr("step 0/0  loss -"), HasSubstr("no worker")));
}

TEST(StatusTable, texts_of_strangers_do_not_command_the_terminal) {
  JobStatus job;
  job.last_refused =
      "\033[2J\xc2\x9b"
      "1m\r\n ok \xc3\xa9";
  const std::string line = line_with(status_table(job, 0), "the last one");
  EXPECT_TRUE(line.ends_with("the last one: ?[2J??1m?? ok \xc3\xa9")) << line;
}

}  // namespace monitor_status_test
}  // namespace rubato
