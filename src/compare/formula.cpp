#include "compare/formula.h"

#include <muParser.h>

#include <algorithm>

#include "rubato/core/error.h"

namespace rubato {

double evaluate_formula(const std::string& formula, const std::map<std::string, double>& figures) {
  try {
    mu::Parser parser;
    for (const auto& [name, value] : figures) parser.DefineConst(name, value);
    parser.SetExpr(formula);
    return parser.Eval();
  } catch (const mu::Parser::exception_type& error) {
    if (error.GetCode() == mu::ecUNASSIGNABLE_TOKEN) throw UnknownFigure{error.GetToken()};
    throw UsageError("formula '" + formula + "': " + error.GetMsg());
  }
}

std::string identifier(std::string name) {
  std::ranges::replace_if(
      name, [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

std::map<std::string, double> numbers_of(const std::vector<std::pair<std::string, std::string>>& values) {
  std::map<std::string, double> numbers;
  for (const auto& [name, value] : values) {
    try {
      std::size_t used = 0;
      const double number = std::stod(value, &used);
      if (used == value.size()) numbers[identifier(name)] = number;
    } catch (const std::exception&) {  // a word
    }
  }
  return numbers;
}

}  // namespace rubato
