// The page for Prometheus, read line by line as its text format 0.0.4 demands.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>
#include <sstream>

#include "rubato/monitor/status.h"

namespace rubato {
namespace monitor_status_metrics_test {

using ::testing::HasSubstr;
using ::testing::Not;

bool is_name(const std::string& text) {
  return !text.empty() && std::isdigit(static_cast<unsigned char>(text[0])) == 0 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
}

using Labels = std::map<std::string, std::string>;

/// A page that was read; every breach of the format is a failure of the test.
class Checked {
 public:
  explicit Checked(const std::string& page) {
    EXPECT_TRUE(page.ends_with("\n"));
    std::istringstream lines(page);
    for (std::string line; std::getline(lines, line);) line.starts_with("#") ? read_comment(line) : read_sample(line);
    for (const auto& [name, type] : types_) EXPECT_EQ(type == "counter", name.ends_with("_total")) << name;
  }
  double at(const std::string& name, const Labels& labels = {}) const {
    const auto found = samples_.find({name, labels});
    return found == samples_.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
  }
  std::size_t size() const { return samples_.size(); }

 private:
  void read_comment(const std::string& line) {
    std::istringstream words(line);
    std::string hash, kind, name, rest;
    words >> hash >> kind >> name;
    std::getline(words >> std::ws, rest);
    EXPECT_TRUE(is_name(name) && name.starts_with("rubato_") && !rest.empty()) << line;
    if (kind == "HELP") {
      EXPECT_TRUE(helped_.insert(name).second) << "twice: " << line;
    } else {
      EXPECT_EQ(kind, "TYPE");
      EXPECT_TRUE(helped_.contains(name) && types_.emplace(name, rest).second) << line;
      EXPECT_TRUE(rest == "gauge" || rest == "counter") << line;
      current_ = name;
    }
  }
  void read_sample(const std::string& line) {
    std::size_t at = line.find_first_of("{ ");
    ASSERT_NE(at, std::string::npos) << line;
    const std::string name = line.substr(0, at);
    EXPECT_EQ(name, current_) << "samples of a metric stand together, after its type";
    Labels labels;
    if (line[at] == '{') {
      at = read_labels(line, at + 1, labels);
      ASSERT_NE(at, std::string::npos) << line;
    }
    ASSERT_EQ(line[at], ' ') << line;
    const std::string number = line.substr(at + 1);
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    EXPECT_TRUE(!number.empty() && *end == '\0') << line;
    EXPECT_TRUE(samples_.emplace(std::pair{name, labels}, value).second) << "twice: " << line;
  }
  /// Position after the closing brace; npos where there is none.
  static std::size_t read_labels(const std::string& line, std::size_t at, Labels& labels) {
    while (true) {
      const std::size_t equals = line.find("=\"", at);
      if (equals == std::string::npos || !is_name(line.substr(at, equals - at))) return std::string::npos;
      std::string value;
      std::size_t i = equals + 2;
      for (; i < line.size() && line[i] != '"'; ++i) {
        if (line[i] == '\\' && ++i < line.size() && std::string("\\\"n").find(line[i]) == std::string::npos)
          return std::string::npos;
        value += line[i] == 'n' && line[i - 1] == '\\' ? '\n' : line[i];
      }
      if (i + 1 >= line.size() || !labels.emplace(line.substr(at, equals - at), value).second) return std::string::npos;
      if (line[i + 1] == '}') return i + 2;
      if (line[i + 1] != ',') return std::string::npos;
      at = i + 2;
    }
  }

  std::string current_;
  std::set<std::string> helped_;
  std::map<std::string, std::string> types_;
  std::map<std::pair<std::string, Labels>, double> samples_;
};

JobStatus two_workers() {
  JobStatus job{.time = 1700000000.25,
                .state = "running",
                .run = "runs/a",
                .schedule = "ddg",
                .coupling = "easgd",
                .step = 120,
                .total_steps = 400,
                .train_loss = 0.5,
                .test_accuracy = 91,
                .deaths = 3,
                .refused = 5,
                .refused_reasons = {{"wrong token", 4}, {"other job", 1}}};
  job.workers = {{.rank = 0,
                  .host = "n",
                  .state = "alive",
                  .samples = 1 << 20,
                  .loss = 0.75,
                  .waiting_share = 0.125,
                  .bytes_sent = 12'300'000},
                 {.rank = 1, .stage = 2, .host = "n", .state = "dead", .exchanges_skipped = 6}};
  return job;
}

TEST(PrometheusText, is_well_formed_and_says_what_the_status_says) {
  const Checked page(prometheus_text(two_workers()));
  const Labels first = {{"rank", "0"}, {"host", "n"}, {"stage", "-1"}}, second = {{"rank", "1"}, {"host", "n"}, {"stage", "2"}};
  EXPECT_EQ(page.at("rubato_status_timestamp_seconds"), 1700000000.25);
  EXPECT_EQ(page.at("rubato_job_step"), 120);
  EXPECT_EQ(page.at("rubato_job_state", {{"state", "running"}}), 1);
  EXPECT_EQ(page.at("rubato_job_state", {{"state", "done"}}), 0);
  EXPECT_DOUBLE_EQ(page.at("rubato_job_test_accuracy_ratio"), 0.91);
  EXPECT_EQ(page.at("rubato_deaths_total"), 3);
  EXPECT_EQ(page.at("rubato_refused_connections_total"), 5);
  EXPECT_EQ(page.at("rubato_refused_connections_by_reason_total", {{"reason", "wrong token"}}), 4);
  EXPECT_EQ(page.at("rubato_worker_samples_total", first), 1 << 20);
  EXPECT_EQ(page.at("rubato_worker_sent_bytes_total", first), 12'300'000);
  EXPECT_EQ(page.at("rubato_worker_waiting_ratio", first), 0.125);
  EXPECT_EQ(page.at("rubato_worker_loss", first), 0.75);
  EXPECT_TRUE(std::isnan(page.at("rubato_worker_loss", second))) << "it has none";
  EXPECT_EQ(page.at("rubato_worker_exchanges_skipped_total", second), 6);
  Labels dead = second;
  dead["state"] = "dead";
  EXPECT_EQ(page.at("rubato_worker_state", dead), 1);
}

TEST(PrometheusText, of_nothing_is_well_formed_too) {
  EXPECT_GT(Checked(prometheus_text(JobStatus{})).size(), 0U);
}

TEST(PrometheusText, labels_are_escaped) {
  JobStatus job;
  job.run = "a\\b\"c\nd\\n";
  EXPECT_THAT(prometheus_text(job), HasSubstr(R"(run="a\\b\"c\nd\\n")"));
  job.refused_reasons = {{"x\"} 1\nevil 1", 2}, {"\xff", 1}};
  const std::string text = prometheus_text(job);
  EXPECT_THAT(text, Not(HasSubstr("\xff")));
  EXPECT_EQ(Checked(text).at("rubato_refused_connections_by_reason_total", {{"reason", "x\"} 1\nevil 1"}}), 2);
}

TEST(PrometheusText, numbers_that_are_not_finite_have_the_names_that_prometheus_knows) {
  JobStatus job;
  job.train_loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(prometheus_text(job), HasSubstr("\nrubato_job_train_loss NaN\n"));
  job.train_loss = -std::numeric_limits<double>::infinity();
  EXPECT_THAT(prometheus_text(job), HasSubstr("\nrubato_job_train_loss -Inf\n"));
}

}  // namespace monitor_status_metrics_test
}  // namespace rubato
