#include "rubato/context/context.h"

#include <typeinfo>

#include "rubato/context/runtime.h"

namespace rubato {

Packed Message::pack() const {
  throw std::logic_error(std::string("a message of type ") + typeid(*this).name() + " stays in its process");
}

void Context::refuse(const ChannelSpec& channel, const PackedMessage&, const std::string& why) {
  throw std::logic_error("a message in '" + channel.name + "' cannot be used: " + why);
}

}  // namespace rubato
