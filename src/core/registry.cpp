#include "rubato/core/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace rubato {
namespace {

bool is_well_formed(const std::string& name) {
  const auto letter_or_digit = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  return !name.empty() && letter_or_digit(name.front()) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return letter_or_digit(c) || c == '-'; });
}

bool declare_the_same(const OptionSpec& one, OptionSpec other) {
  other.only_if = one.only_if;
  return one == other;
}

}  // namespace

void RegistryNames::admit(const std::string& name, const std::vector<OptionSpec>& options) {
  const auto refuse = [&](const std::string& why) { throw std::logic_error(fmt::format("{} '{}': {}", kind_, name, why)); };
  if (!is_well_formed(name)) refuse("a name consists of lower-case letters, digits and dashes and does not begin with a dash");
  if (std::ranges::find(names_, name) != names_.end()) refuse("there is one of this name already; give yours another");
  for (const OptionSpec& option : options) {
    if (!is_well_formed(option.name) || option.name == "name") {
      refuse(
          fmt::format("its option '{}' needs a name of lower-case letters, digits and dashes, which is not 'name'", option.name));
    }
    if (std::ranges::count(options, option.name, &OptionSpec::name) > 1) {
      refuse(fmt::format("it declares the option '{}' twice", option.name));
    }
    if (option.only_if && std::ranges::find(options, option.only_if->option, &OptionSpec::name) == options.end()) {
      refuse(fmt::format("its option '{}' depends on '{}', which it has not", option.name, option.only_if->option));
    }
    const auto known = std::ranges::find(options_, option.name, &OptionSpec::name);
    if (known != options_.end() && !declare_the_same(*known, option)) {
      refuse(
          fmt::format("another {} has an option '{}' with another type, default, help or range; declare the same, or give it "
                      "another name",
                      kind_, option.name));
    }
  }
  names_.push_back(name);
  for (const OptionSpec& option : options) {
    if (std::ranges::find(options_, option.name, &OptionSpec::name) == options_.end()) options_.push_back(option);
  }
}

}  // namespace rubato
