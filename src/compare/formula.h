#pragma once

#include <map>
#include <string>
#include <vector>

namespace rubato {

/// A figure that a formula names and that is not among those it is given.
struct UnknownFigure {
  std::string name;
};

/// "base_virtual_seconds / virtual_seconds" with `figures`, as muParser reads it. UsageError when it cannot be read.
double evaluate_formula(const std::string& formula, const std::map<std::string, double>& figures);

/// `name` with every character that a formula does not allow replaced by '_'.
std::string identifier(std::string name);

/// Those of `values` that are numbers, by identifier.
std::map<std::string, double> numbers_of(const std::vector<std::pair<std::string, std::string>>& values);

}  // namespace rubato
