#include "core/functions.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <regex>

namespace rubato::test {
namespace {

/// Where the literal that begins at `at` ends.
std::size_t end_of_literal(const std::string& text, std::size_t at) {
  if (text.compare(at, 2, "R\"") == 0) {
    const std::size_t open = text.find('(', at);
    const std::string close = ")" + text.substr(at + 2, open - at - 2) + "\"";
    return text.find(close, open) + close.size();
  }
  std::size_t end = at + 1;
  while (end < text.size() && text[end] != text[at]) end += text[end] == '\\' ? 2 : 1;
  return end + 1;
}

bool literal_begins(const std::string& text, std::size_t at) {
  const bool in_word = at > 0 && (std::isalnum(static_cast<unsigned char>(text[at - 1])) != 0 || text[at - 1] == '_');
  if (text.compare(at, 2, "R\"") == 0) return !in_word;
  return text[at] == '"' || (text[at] == '\'' && !in_word);  // 1'000 is a number
}

/// Without comments, preprocessor lines and what stands in literals; the lines stay.
std::string code_of(const std::string& text) {
  std::string code;
  const auto skip_to = [&](std::size_t from, std::size_t to) {
    for (; from < to; ++from) code += text[from] == '\n' ? "\n" : "";
    return to;
  };
  for (std::size_t at = 0; at < text.size();) {
    const bool line_begins = code.empty() || code.back() == '\n';
    if (text.compare(at, 2, "//") == 0 || (line_begins && text[at] == '#')) {
      at = std::min(text.find('\n', at), text.size());
    } else if (literal_begins(text, at)) {
      code += '0';
      at = skip_to(at, std::min(end_of_literal(text, at), text.size()));
    } else {
      code += text[at++];
    }
  }
  return code;
}

std::string one_line(const std::string& text) {
  const std::string line = std::regex_replace(text, std::regex("\\s+"), " ");
  return std::regex_replace(line, std::regex("^ | $"), "");
}

/// `head` with "()" in place of every list in parentheses.
std::string without_parentheses(const std::string& head) {
  std::string flat;
  int depth = 0;
  for (const char c : head) {
    if (c == ')' && --depth == 0) flat += "()";
    if (c == '(') ++depth;
    if (depth == 0 && c != ')') flat += c;
  }
  return flat;
}

enum class Brace { scope, function, member_value, other };

/// What a brace opens that follows `head`, outside of functions.
Brace brace_after(const std::string& head) {
  static const std::regex scope("^(template ?<.*> ?)?(namespace|class|struct|union|enum|extern)\\b");
  static const std::regex member("\\) ?:[^:].*[\\w>]$");
  const std::string flat = without_parentheses(head);
  if (std::regex_search(flat, scope) && flat.find("()") == std::string::npos) return Brace::scope;
  if (flat.find("()") == std::string::npos) return Brace::other;
  if (std::regex_search(flat, member) && flat.back() != ')' && !flat.ends_with("const") && !flat.ends_with("noexcept")) {
    return Brace::member_value;
  }
  const bool assigns =
      std::regex_search(std::regex_replace(flat, std::regex("operator ?\\S+"), ""), std::regex("(^|[^=!<>])=($|[^=])"));
  return assigns ? Brace::other : Brace::function;
}

class Scanner {
 public:
  std::vector<FoundFunction> scan(const std::string& code) {
    for (const char c : code) {
      if (c == '\n') ++line_;
      if (function_) {
        inside(c);
      } else {
        outside(c);
      }
    }
    return std::move(found_);
  }

 private:
  void outside(char c) {
    if (c == '{') {
      const Brace brace = brace_after(one_line(head_));
      if (brace == Brace::function) {
        function_ = FoundFunction{.head = one_line(head_), .line = head_line_};
        depth_ = 1;
      }
      values_.push_back(brace == Brace::member_value);
      if (brace == Brace::function) values_.pop_back();
      if (brace != Brace::member_value) head_.clear();
    } else if (c == '}') {
      const bool value = !values_.empty() && values_.back();
      if (!values_.empty()) values_.pop_back();
      if (!value) head_.clear();
    } else if (c == ';' || (c == ':' && (head_ == "public" || head_ == "private" || head_ == "protected"))) {
      head_.clear();
    } else if (!(head_.empty() && std::isspace(static_cast<unsigned char>(c)) != 0)) {
      if (head_.empty()) head_line_ = line_;
      head_ += c;
    }
  }

  void inside(char c) {
    if (c == '{') {
      if (!table_ && std::regex_search(one_line(statement_), std::regex("^static const\\b.*= ?$|^static const .*> \\w+ ?$"))) {
        table_ = {depth_, line_};
      }
      ++depth_;
      statement_.clear();
    } else if (c == '}') {
      --depth_;
      statement_.clear();
      if (table_ && depth_ == table_->first) {
        function_->table += line_ - table_->second + 1;
        table_.reset();
      }
      if (depth_ > 0) return;
      function_->lines = line_ - function_->line + 1;
      found_.push_back(*function_);
      function_.reset();
    } else if (c == ';') {
      statement_.clear();
    } else {
      statement_ += c;
    }
  }

  std::vector<FoundFunction> found_;
  std::string head_;       // what stands since the last statement or brace, outside of functions
  std::string statement_;  // the same inside of one
  std::vector<bool> values_;
  std::optional<FoundFunction> function_;
  std::optional<std::pair<int, int>> table_;  // depth and line of its brace
  int line_ = 1, head_line_ = 1, depth_ = 0;
};

}  // namespace

std::vector<FoundFunction> functions_in(const std::string& text) {
  return Scanner().scan(code_of(text));
}

}  // namespace rubato::test
