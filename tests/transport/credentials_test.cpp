#include "rubato/transport/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "rubato/core/error.h"
#include "support/temporary_directory.h"

namespace rubato {
namespace transport_credentials_test {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string refusal_of_file(const fs::path& file) {
  try {
    read_credentials(file);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

std::string refusal_of_text(const std::string& text) {
  try {
    credentials_from_text(text, "the source");
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

class CredentialsFile : public testing::Test {
 protected:
  test::TemporaryDirectory folder_;
  const fs::path file_ = folder_.path() / "credentials";
  const Credentials credentials_ = make_credentials();
};

TEST(Credentials, are_made_anew_each_time) {
  const Credentials a = make_credentials(), b = make_credentials();
  EXPECT_THAT(a.token, testing::MatchesRegex("[0-9a-f]{64}"));
  EXPECT_NE(a.token, b.token);
  EXPECT_NE(a.server_secret, b.server_secret);
  EXPECT_NE(a.client_secret, b.client_secret);
  EXPECT_NE(a.server_secret, a.client_secret);
}

TEST(Credentials, come_out_of_their_text) {
  const Credentials credentials = make_credentials();
  EXPECT_EQ(credentials_from_text(to_text(credentials), "text"), credentials);
}

TEST(Credentials, refuse_text_that_is_something_else) {
  for (const char* text : {"", "{", "[]", "null", "{}", "7", "\xff\xfe", "[[[[[[[["}) {
    EXPECT_THAT(refusal_of_text(text), HasSubstr("the source does not hold the credentials")) << text;
  }
}

TEST(Credentials, refuse_each_field_that_is_missing_or_malformed) {
  const Credentials credentials = make_credentials();
  const auto whole = nlohmann::json::parse(to_text(credentials));
  for (const auto& [name, value] : whole.items()) {
    SCOPED_TRACE(name);
    auto changed = whole;
    changed.erase(name);
    EXPECT_NE(refusal_of_text(changed.dump()), "");
    for (const nlohmann::json& other : {nlohmann::json(7), nlohmann::json(""), nlohmann::json(value.get<std::string>() + "0"),
                                        nlohmann::json(std::string(value.get<std::string>().size(), '~'))}) {
      changed[name] = other;
      EXPECT_NE(refusal_of_text(changed.dump()), "");
    }
    changed = whole;
    changed["more"] = "x";
    EXPECT_NE(refusal_of_text(changed.dump()), "");
  }
}

TEST(Credentials, refuse_keys_that_do_not_belong_together) {
  Credentials mixed = make_credentials();
  std::swap(mixed.client_public, mixed.server_public);
  EXPECT_NE(refusal_of_text(to_text(mixed)), "");
}

TEST(Credentials, refuse_without_telling_secrets) {
  const Credentials credentials = make_credentials();
  const std::string cut = to_text(credentials).substr(0, 100);
  EXPECT_THAT(refusal_of_text(cut), testing::Not(HasSubstr(credentials.token.substr(0, 8))));
}

TEST_F(CredentialsFile, is_read_as_it_was_written) {
  write_credentials(file_, credentials_);
  EXPECT_EQ(read_credentials(file_), credentials_);
}

TEST_F(CredentialsFile, is_its_owners_alone_whatever_the_umask) {
  for (const mode_t mask : {0000u, 0022u, 0277u}) {
    const mode_t before = umask(mask);
    write_credentials(file_, credentials_);
    umask(before);
    EXPECT_EQ(fs::status(file_).permissions(), fs::perms::owner_read | fs::perms::owner_write) << mask;
    fs::remove(file_);
  }
}

TEST_F(CredentialsFile, never_replaces_another) {
  std::ofstream(file_) << "something";
  EXPECT_THROW(write_credentials(file_, credentials_), DataError);
  std::string content;
  std::ifstream(file_) >> content;
  EXPECT_EQ(content, "something");
}

TEST_F(CredentialsFile, is_not_written_through_a_link) {
  const fs::path target = folder_.path() / "target";
  fs::create_symlink(target, file_);
  EXPECT_THROW(write_credentials(file_, credentials_), DataError);
  EXPECT_FALSE(fs::exists(target));
}

TEST_F(CredentialsFile, is_not_written_where_there_is_no_folder) {
  EXPECT_THROW(write_credentials(folder_.path() / "missing" / "credentials", credentials_), DataError);
}

TEST_F(CredentialsFile, is_refused_when_others_may_use_it) {
  write_credentials(file_, credentials_);
  for (const fs::perms more : {fs::perms::group_read, fs::perms::group_write, fs::perms::others_read, fs::perms::others_write}) {
    fs::permissions(file_, fs::perms::owner_read | fs::perms::owner_write | more);
    EXPECT_THAT(refusal_of_file(file_), HasSubstr("can be used by other users"));
  }
  fs::permissions(file_, fs::perms::owner_read);
  EXPECT_EQ(refusal_of_file(file_), "");
}

TEST_F(CredentialsFile, is_refused_when_it_is_somebody_elses) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  write_credentials(file_, credentials_);
  ASSERT_EQ(chown(file_.c_str(), 12345, static_cast<gid_t>(-1)), 0);
  EXPECT_THAT(refusal_of_file(file_), HasSubstr("belongs to another user"));
}

TEST_F(CredentialsFile, is_refused_when_it_is_missing_or_no_file) {
  EXPECT_THAT(refusal_of_file(file_), HasSubstr("cannot read"));
  EXPECT_THAT(refusal_of_file(folder_.path()), HasSubstr("is not a file"));
  ASSERT_EQ(mkfifo(file_.c_str(), 0600), 0);
  EXPECT_THAT(refusal_of_file(file_), HasSubstr("is not a file"));
}

TEST_F(CredentialsFile, is_refused_when_malformed_and_named) {
  for (const std::string& text : {std::string(), std::string("{}"), to_text(credentials_) + std::string(1 << 20, ' ')}) {
    std::ofstream(file_) << text;
    fs::permissions(file_, fs::perms::owner_read | fs::perms::owner_write);
    EXPECT_THAT(refusal_of_file(file_), HasSubstr(file_.string() + " does not hold"));
  }
}

}  // namespace transport_credentials_test
}  // namespace rubato
