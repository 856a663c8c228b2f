#pragma once

#include <string>
#include <vector>

namespace rubato::test {

/// A function with a body, in a file that clang-format has laid out.
struct FoundFunction {
  std::string head;  ///< without line breaks: "int main(int argc, char** argv)"
  int line = 0;      ///< of its first word
  int lines = 0;     ///< from there to the closing brace
  int table = 0;     ///< of these, in a `static const ... = {...};`: data, not statements
};

/// The functions of C++ source `text`, in the order of their ends. Lambdas, and classes inside of a function, count with it.
std::vector<FoundFunction> functions_in(const std::string& text);

}  // namespace rubato::test
