#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "commands.h"
#include "rubato/config/catalogue.h"
#include "rubato/core/error.h"

namespace rubato::app {

void add_list(CLI::App& app, Chosen& chosen) {
  auto kind = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("list", "what there is to choose from: " + join(listable()));
  command->add_option("kind", *kind, join(listable()))->required();
  command->callback([=, &chosen] {
    chosen = [=] {
      const auto rows = catalogue(*kind);
      std::size_t width = 0;
      for (const Listed& row : rows) width = std::max(width, row.name.size());
      for (const Listed& row : rows) fmt::print("{:<{}}  {}\n", row.name, width, row.summary);
      return 0;
    };
  });
}

}  // namespace rubato::app
