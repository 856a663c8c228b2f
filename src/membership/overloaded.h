#pragma once

namespace rubato::membership {

/// Functions for the alternatives of a variant, as one.
template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

}  // namespace rubato::membership
