#include "rubato/core/read_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "rubato/core/error.h"

namespace fs = std::filesystem;

namespace rubato {

std::string whole_file(const fs::path& path) {
  const auto refuse = [&](const std::string& why) { throw DataError("cannot read " + path.string() + ": " + why); };
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) refuse("it is a folder");
  if (fs::is_character_file(path, ignored) || fs::is_block_file(path, ignored)) refuse("it is a device, not a file");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(std::strerror(errno));
  std::ostringstream content;
  if (file.peek() != std::ifstream::traits_type::eof()) content << file.rdbuf();
  if (file.bad() || !content) refuse(errno != 0 ? std::strerror(errno) : "the system gives no reason");
  return std::move(content).str();
}

std::optional<std::string> hidden_by(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) || !error || error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    return std::nullopt;
  }
  return error.message();
}

std::string sentence_of(const fs::filesystem_error& error) {
  const std::string where = error.path1().empty() ? "the working folder" : error.path1().string();
  return where + ": " + error.code().message();
}

}  // namespace rubato
