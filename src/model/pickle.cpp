#include "model/pickle.h"

#include <charconv>
#include <cstdint>
#include <cstring>
#include <unordered_map>

namespace rubato::pickle {
namespace {

/// Bytes that are read in order; Malformed where they end too early.
class Bytes {
 public:
  explicit Bytes(std::string_view all) : all_(all) {}
  std::size_t position() const { return position_; }

  std::string_view take(std::uint64_t size) {
    if (size > all_.size() - position_) throw Malformed("it ends in the middle");
    const std::string_view part = all_.substr(position_, size);
    position_ += size;
    return part;
  }
  std::string_view line() {
    const std::size_t end = all_.find('\n', position_);
    if (end == std::string_view::npos) throw Malformed("it ends in the middle");
    const std::string_view part = take(end - position_);
    ++position_;
    return part;
  }
  /// Little-endian, without a sign.
  std::uint64_t number(int size) {
    std::uint64_t value = 0;
    const std::string_view bytes = take(static_cast<std::uint64_t>(size));
    for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
    return value;
  }
  std::string_view sized(int size_of_size) { return take(number(size_of_size)); }

 private:
  std::string_view all_;
  std::size_t position_ = 0;
};

/// Two's complement of any length; what is beyond 64 bits stays as text, because no weight is counted by it.
decltype(Value::is) long_number(std::string_view bytes) {
  if (bytes.size() > 8) return std::string(bytes);
  std::uint64_t value = !bytes.empty() && (bytes.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  return static_cast<std::int64_t>(value);
}

decltype(Value::is) decimal(std::string_view text) {
  if (text == "00" || text == "01") return text == "01";  // how protocol 1 writes a bool
  if (text.ends_with('L')) text.remove_suffix(1);
  std::int64_t value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc() || end != text.data() + text.size()) throw Malformed("it has a number that is none");
  return value;
}

}  // namespace

/// The stack machine that a pickle is a program for, see Python's pickletools.
class Machine {
 public:
  Machine(Document& document, std::string_view bytes) : document_(document), bytes_(bytes) {}

  void run() {
    for (;;) {
      const char operation = bytes_.take(1).front();
      if (operation == '.') break;
      if (!constant(operation) && !collection(operation) && !object(operation) && !memory(operation)) {
        throw Malformed("it has the unknown operation " + std::to_string(static_cast<std::uint8_t>(operation)));
      }
    }
    document_.root_ = pop();
    document_.size_ = bytes_.position();
  }

 private:
  bool constant(char operation) {
    switch (operation) {
      case '\x80':
        bytes_.take(1);
        return true;  // PROTO
      case '\x95':
        bytes_.take(8);
        return true;  // FRAME
      case 'N':
        push(Nothing{});
        return true;
      case '\x88':
        push(true);
        return true;
      case '\x89':
        push(false);
        return true;
      case 'I':
      case 'L':
        push(decimal(bytes_.line()));
        return true;
      case 'J':
        push(std::int64_t{static_cast<std::int32_t>(bytes_.number(4))});
        return true;
      case 'K':
        push(static_cast<std::int64_t>(bytes_.number(1)));
        return true;
      case 'M':
        push(static_cast<std::int64_t>(bytes_.number(2)));
        return true;
      case '\x8a':
        push(long_number(bytes_.sized(1)));
        return true;
      case '\x8b':
        push(long_number(bytes_.sized(4)));
        return true;
      case 'G':
        push(big_endian_double());
        return true;
      case 'U':
      case 'C':
      case '\x8c':
        push(std::string(bytes_.sized(1)));
        return true;
      case 'T':
      case 'X':
      case 'B':
        push(std::string(bytes_.sized(4)));
        return true;
      case '\x8d':
      case '\x8e':
      case '\x96':
        push(std::string(bytes_.sized(8)));
        return true;
      default:
        return false;
    }
  }

  bool collection(char operation) {
    switch (operation) {
      case '(':
        marks_.push_back(stack_.size());
        return true;
      case ')':
      case ']':
      case '\x8f':
        push(Sequence{});
        return true;
      case '\x85':
        push(Sequence{pop_some(1)});
        return true;
      case '\x86':
        push(Sequence{pop_some(2)});
        return true;
      case '\x87':
        push(Sequence{pop_some(3)});
        return true;
      case 't':
      case 'l':
      case '\x91':
        push(Sequence{pop_to_mark()});
        return true;
      case '}':
        push(Dictionary{});
        return true;
      case 'd': {
        const auto items = pop_to_mark();
        add_to_dictionary(*push(Dictionary{}), items);
        return true;
      }
      case 'a':
        add_to_sequence(pop_some(1));
        return true;
      case 'e':
      case '\x90':
        add_to_sequence(pop_to_mark());
        return true;
      case 's': {
        const auto items = pop_some(2);
        add_to_dictionary(*top(), items);
        return true;
      }
      case 'u': {
        const auto items = pop_to_mark();
        add_to_dictionary(*top(), items);
        return true;
      }
      case '0':
        pop();
        return true;
      case '1':
        pop_to_mark();
        return true;
      default:
        return false;
    }
  }

  bool object(char operation) {
    switch (operation) {
      case 'c': {
        const std::string_view module = bytes_.line(), name = bytes_.line();
        push(Global{std::string(module), std::string(name)});
        return true;
      }
      case '\x93': {
        const auto names = pop_some(2);
        const auto *module = names[0]->as<std::string>(), *name = names[1]->as<std::string>();
        if (module == nullptr || name == nullptr) throw Malformed("it names a class by something that is no text");
        push(Global{*module, *name});
        return true;
      }
      case 'R':
      case '\x81': {
        const auto both = pop_some(2);
        make(both[0], both[1]);
        return true;
      }
      case 'b':
        pop();
        top();
        return true;  // attributes, like the versions of modules that a state_dict has
      case 'Q':
        push(Outside{pop()});
        return true;
      default:
        return false;
    }
  }

  bool memory(char operation) {
    switch (operation) {
      case 'q':
        memory_[bytes_.number(1)] = top();
        return true;
      case 'r':
        memory_[bytes_.number(4)] = top();
        return true;
      case '\x94': {
        const std::uint64_t next = memory_.size();
        memory_[next] = top();
        return true;
      }
      case 'h':
        recall(bytes_.number(1));
        return true;
      case 'j':
        recall(bytes_.number(4));
        return true;
      default:
        return false;
    }
  }

  /// An OrderedDict is filled after it has been made, so it becomes a dictionary at once.
  void make(const Value* function, const Value* arguments) {
    const auto* global = function->as<Global>();
    const auto* given = arguments->as<Sequence>();
    if (given == nullptr) throw Malformed("it calls something without a list of arguments");
    if (global == nullptr || global->module != "collections" || global->name != "OrderedDict") {
      push(Call{function, arguments});
      return;
    }
    Value* made = push(Dictionary{});
    if (given->items.empty()) return;
    const auto* pairs = given->items.front()->as<Sequence>();
    if (pairs == nullptr) throw Malformed("it has an OrderedDict of something that is no list");
    for (const Value* pair : pairs->items) {
      const auto* both = pair->as<Sequence>();
      if (both == nullptr || both->items.size() != 2)
        throw Malformed("it has an OrderedDict of something that is no list of pairs");
      add_to_dictionary(*made, both->items);
    }
  }

  void recall(std::uint64_t index) {
    const auto found = memory_.find(index);
    if (found == memory_.end()) throw Malformed("it refers to something that it has not");
    stack_.push_back(found->second);
  }

  double big_endian_double() {
    std::uint64_t bits = 0;
    for (const char byte : bytes_.take(8)) bits = bits << 8 | static_cast<std::uint8_t>(byte);
    double value = 0;
    static_assert(sizeof value == sizeof bits);
    std::memcpy(&value, &bits, sizeof bits);
    return value;
  }

  void add_to_sequence(const std::vector<const Value*>& items) {
    auto* sequence = std::get_if<Sequence>(&top()->is);
    if (sequence == nullptr) throw Malformed("it adds to something that is no list");
    sequence->items.insert(sequence->items.end(), items.begin(), items.end());
  }
  static void add_to_dictionary(Value& value, const std::vector<const Value*>& items) {
    auto* dictionary = std::get_if<Dictionary>(&value.is);
    if (dictionary == nullptr || items.size() % 2 != 0) throw Malformed("it adds to something that is no dictionary");
    for (std::size_t i = 0; i < items.size(); i += 2) dictionary->items.emplace_back(items[i], items[i + 1]);
  }

  Value* push(decltype(Value::is) what) {
    document_.values_.push_back({std::move(what)});
    stack_.push_back(&document_.values_.back());
    return stack_.back();
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value* top() {
    if (stack_.size() <= floor()) throw Malformed("it takes more than it has");
    return stack_.back();
  }
  Value* pop() {
    Value* value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<const Value*> pop_some(std::size_t count) {
    if (stack_.size() - floor() < count) throw Malformed("it takes more than it has");
    return pop_from(stack_.size() - count);
  }
  std::vector<const Value*> pop_to_mark() {
    if (marks_.empty()) throw Malformed("it takes more than it has");
    const std::size_t begin = marks_.back();
    marks_.pop_back();
    return pop_from(begin);
  }
  std::vector<const Value*> pop_from(std::size_t begin) {
    std::vector<const Value*> values(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    return values;
  }

  Document& document_;
  Bytes bytes_;
  std::vector<Value*> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Value*> memory_;
};

Document::Document(std::string_view bytes) {
  Machine(*this, bytes).run();
}

void Writer::global(std::string_view module, std::string_view name) {
  bytes_.append("c").append(module).append("\n").append(name).append("\n");
}

void Writer::text(std::string_view value) {
  bytes_ += 'X';
  for (int byte = 0; byte < 4; ++byte) bytes_ += static_cast<char>(value.size() >> 8 * byte);
  bytes_ += value;
}

void Writer::number(std::int64_t value) {
  const auto add = [&](const char* operation, int size) {
    bytes_ += operation;
    for (int byte = 0; byte < size; ++byte) bytes_ += static_cast<char>(static_cast<std::uint64_t>(value) >> 8 * byte);
  };
  if (value >= 0 && value <= 0xff) return add("K", 1);
  if (value >= 0 && value <= 0xffff) return add("M", 2);
  if (value >= INT32_MIN && value <= INT32_MAX) return add("J", 4);
  add("\x8a\x08", 8);
}

}  // namespace rubato::pickle
