#pragma once

#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// What Python's `pickle` wrote, as data: nothing is imported and nothing is called, so a file from anywhere may be read.
namespace rubato::pickle {

struct Value;

struct Nothing {};  ///< None
struct Global {     ///< a class or function, by name only
  std::string module, name;
};
struct Sequence {  ///< tuple, list or set
  std::vector<const Value*> items;
};
struct Dictionary {  ///< dict or OrderedDict, in the order of the file
  std::vector<std::pair<const Value*, const Value*>> items;
};
struct Call {  ///< what Python would make by calling `function` with `arguments`
  const Value* function;
  const Value* arguments;
};
struct Outside {  ///< a persistent id: something that is stored beside the pickle
  const Value* id;
};

struct Value {
  std::variant<Nothing, bool, std::int64_t, double, std::string, Global, Sequence, Dictionary, Call, Outside> is;

  template <class T>
  const T* as() const {
    return std::get_if<T>(&is);
  }
};

/// Not a pickle, cut off, or of kinds that weights never have. `what()` is half a sentence: "it ends in the middle".
struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One pickle: protocols 1 to 5, without buffers out of band. Owns its values.
class Document {
 public:
  /// Reads from the beginning of `bytes`, which may go on after the pickle. Throws Malformed.
  explicit Document(std::string_view bytes);
  const Value& root() const { return *root_; }
  const std::deque<Value>& values() const { return values_; }  ///< all of them, used or not
  std::size_t size() const { return size_; }                   ///< bytes that were read

 private:
  friend class Machine;
  std::deque<Value> values_;  // an arena: values may refer to each other in circles
  const Value* root_ = nullptr;
  std::size_t size_ = 0;
};

/// Writes what `Document` reads: the part of protocol 2 that weights need.
class Writer {
 public:
  Writer() : bytes_("\x80\x02") {}
  void global(std::string_view module, std::string_view name);
  void text(std::string_view value);
  void number(std::int64_t value);
  void boolean(bool value) { bytes_ += value ? '\x88' : '\x89'; }
  void begin() { bytes_ += '('; }  ///< the items of the tuple, or of the dictionary, that follow
  void end_tuple() { bytes_ += 't'; }
  void empty_dictionary() { bytes_ += '}'; }
  void end_items() { bytes_ += 'u'; }  ///< adds names and values since `begin` to the dictionary below
  void call() { bytes_ += 'R'; }       ///< the function and the tuple on top
  void outside() { bytes_ += 'Q'; }    ///< the tuple on top is an id
  std::string finish() { return std::move(bytes_ += '.'); }

 private:
  std::string bytes_;
};

}  // namespace rubato::pickle
