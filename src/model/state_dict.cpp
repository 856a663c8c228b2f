#include "rubato/model/state_dict.h"

#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>

#include "model/pickle.h"
#include "rubato/core/error.h"
#include "rubato/model/memory_error.h"

namespace rubato {
namespace {

constexpr const char* wanted = "it must be a dictionary of tensors by name, as torch.save(model.state_dict(), path) writes it";

struct StorageClass {
  const char* name;
  torch::ScalarType type;
};
constexpr StorageClass storage_classes[] = {{"FloatStorage", torch::kFloat}, {"DoubleStorage", torch::kDouble},
                                            {"HalfStorage", torch::kHalf},   {"BFloat16Storage", torch::kBFloat16},
                                            {"LongStorage", torch::kLong},   {"IntStorage", torch::kInt},
                                            {"ShortStorage", torch::kShort}, {"CharStorage", torch::kChar},
                                            {"ByteStorage", torch::kByte},   {"BoolStorage", torch::kBool}};

/// The class of an object, also where it was saved with its source, as ("module", class, file, source); null: another thing.
const pickle::Global* class_of(const pickle::Call& call) {
  const auto* outside = call.function->as<pickle::Outside>();
  const auto* id = outside != nullptr ? outside->id->as<pickle::Sequence>() : nullptr;
  return id != nullptr && id->items.size() > 1 ? id->items[1]->as<pickle::Global>() : call.function->as<pickle::Global>();
}

std::string described(const pickle::Value& value) {
  if (const auto* call = value.as<pickle::Call>()) {
    const pickle::Global* made = class_of(*call);
    return made != nullptr ? fmt::format("an object of {}.{}", made->module, made->name) : "an object";
  }
  if (value.as<pickle::Dictionary>() != nullptr) return "a dictionary";
  if (value.as<pickle::Sequence>() != nullptr) return "a list";
  if (value.as<std::string>() != nullptr) return "a text";
  if (value.as<pickle::Nothing>() != nullptr) return "None";
  return "a number";
}

/// The arguments, at least `least`, if `value` is a call of one of `names` in `module`.
const std::vector<const pickle::Value*>* arguments_of(const pickle::Value& value, std::string_view module,
                                                      std::initializer_list<std::string_view> names, std::size_t least) {
  const auto* call = value.as<pickle::Call>();
  const auto* function = call != nullptr ? call->function->as<pickle::Global>() : nullptr;
  if (function == nullptr || function->module != module) return nullptr;
  if (std::find(names.begin(), names.end(), function->name) == names.end()) return nullptr;
  const auto& items = call->arguments->as<pickle::Sequence>()->items;  // never something else, see pickle::Machine
  return items.size() >= least ? &items : nullptr;
}

struct StorageId {
  std::string key;
  torch::ScalarType type;
};

/// ("storage", class, key, place, elements), in old files with a sixth for a part of another storage.
std::optional<StorageId> storage_id(const pickle::Value& value) {
  const auto* outside = value.as<pickle::Outside>();
  const auto* id = outside != nullptr ? outside->id->as<pickle::Sequence>() : nullptr;
  if (id == nullptr || id->items.size() < 5) return std::nullopt;
  const auto* word = id->items[0]->as<std::string>();
  const auto* kind = id->items[1]->as<pickle::Global>();
  const auto* key = id->items[2]->as<std::string>();
  if (word == nullptr || *word != "storage" || kind == nullptr || key == nullptr) return std::nullopt;
  if (id->items.size() > 5 && id->items[5]->as<pickle::Nothing>() == nullptr) return std::nullopt;
  for (const StorageClass& known : storage_classes) {
    if (kind->name == known.name) return StorageId{*key, known.type};
  }
  return std::nullopt;
}

using Storage = torch::Tensor;  // of one dimension

/// Hands over all of the storage with that id; throws pickle::Malformed if there is none.
using StorageSource = std::function<Storage(const StorageId&)>;

std::optional<std::vector<std::int64_t>> numbers_in(const pickle::Value& value) {
  const pickle::Value* list = &value;
  if (const auto* size = arguments_of(value, "torch", {"Size"}, 1)) list = size->front();
  const auto* sequence = list->as<pickle::Sequence>();
  if (sequence == nullptr) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const pickle::Value* item : sequence->items) {
    const auto* number = item->as<std::int64_t>();
    if (number == nullptr || *number < 0) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

/// Whether all elements of such a view lie in a storage of `available` elements.
bool fits(std::int64_t offset, const std::vector<std::int64_t>& sizes, const std::vector<std::int64_t>& strides,
          std::int64_t available) {
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return offset <= available;
  std::int64_t last = offset;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(sizes[i] - 1, strides[i], &reach) || __builtin_add_overflow(last, reach, &last)) return false;
  }
  return last < available;
}

/// Nothing: `value` is no dense tensor.
std::optional<torch::Tensor> tensor_of(const pickle::Value& value, const StorageSource& storages) {
  if (const auto* inner = arguments_of(value, "torch._utils", {"_rebuild_parameter", "_rebuild_parameter_with_state"}, 1)) {
    return inner->front()->as<pickle::Call>() != nullptr &&
                   arguments_of(*inner->front(), "torch._utils", {"_rebuild_tensor_v2", "_rebuild_tensor"}, 4) != nullptr
               ? tensor_of(*inner->front(), storages)
               : std::nullopt;
  }
  const auto* given = arguments_of(value, "torch._utils", {"_rebuild_tensor_v2", "_rebuild_tensor"}, 4);
  if (given == nullptr) return std::nullopt;
  const auto id = storage_id(*(*given)[0]);
  const auto* offset = (*given)[1]->as<std::int64_t>();
  const auto sizes = numbers_in(*(*given)[2]), strides = numbers_in(*(*given)[3]);
  if (!id || offset == nullptr || *offset < 0 || !sizes || !strides || sizes->size() != strides->size()) return std::nullopt;
  const Storage storage = storages(*id);
  if (!fits(*offset, *sizes, *strides, storage.numel())) throw pickle::Malformed("a tensor has more elements than are there");
  return storage.as_strided(*sizes, *strides, *offset);
}

NamedTensors tensors_in(const pickle::Document& document, const StorageSource& source, const std::string& name) {
  std::map<std::string, Storage> read;  // by type and key: tensors may share one
  const StorageSource storages = [&](const StorageId& id) {
    const auto [found, is_new] = read.try_emplace(fmt::format("{} {}", static_cast<int>(id.type), id.key));
    if (is_new) found->second = source(id);
    return found->second;
  };
  const pickle::Value* root = &document.root();
  if (const auto* tagged = arguments_of(*root, "torch.jit._pickle", {"restore_type_tag"}, 1)) root = tagged->front();
  const auto* dictionary = root->as<pickle::Dictionary>();
  if (dictionary == nullptr) throw DataError(fmt::format("{} holds {}: {}", name, described(*root), wanted));
  NamedTensors tensors;
  for (const auto& [key, value] : dictionary->items) {
    const auto* text = key->as<std::string>();
    if (text == nullptr)
      throw DataError(fmt::format("{} has {} where the name of a tensor is expected: {}", name, described(*key), wanted));
    const auto tensor = tensor_of(*value, storages);
    if (!tensor)
      throw DataError(fmt::format("{} has '{}', which is {} and no dense tensor: {}", name, *text, described(*value), wanted));
    tensors.emplace_back(*text, *tensor);
  }
  return tensors;
}

using caffe2::serialize::PyTorchStreamReader;

Storage record_as(PyTorchStreamReader& archive, const std::string& record, torch::ScalarType type) {
  auto [data, bytes] = archive.getRecord(record);
  const auto owner = std::make_shared<c10::DataPtr>(std::move(data));
  const auto elements = static_cast<std::int64_t>(bytes / torch::elementSize(type));
  if (elements == 0) return torch::empty({0}, type);
  return torch::from_blob(
      owner->get(), {elements}, [owner](void*) {}, type);
}

/// Since PyTorch 1.6: a zip archive of one pickle and one record per storage.
NamedTensors read_archive(std::istream& file, const std::string& name) {
  PyTorchStreamReader archive(&file);
  const auto text = [&](const std::string& record) {
    const auto [data, size] = archive.getRecord(record);
    return std::string(static_cast<const char*>(data.get()), size);
  };
  if (archive.hasRecord("byteorder") && text("byteorder") != "little") {
    throw DataError(name + " has its numbers in big-endian order: save it again on a machine of today");
  }
  return tensors_in(
      pickle::Document(text("data.pkl")), [&](const StorageId& id) { return record_as(archive, "data/" + id.key, id.type); },
      name);
}

constexpr std::string_view old_magic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);

/// Before PyTorch 1.6, and with _use_new_zipfile_serialization=False: five pickles (a magic number, the format's version, sizes
/// of C types, the object, the keys of storages), then for each key its number of elements and the elements.
NamedTensors read_stream(const std::string& bytes, const std::string& name) {
  std::string_view rest = bytes;
  const auto next = [&] {
    pickle::Document document(rest);
    rest.remove_prefix(document.size());
    return document;
  };
  const pickle::Document magic = next();
  const auto* number = magic.root().as<std::string>();
  if (number == nullptr || *number != old_magic) throw pickle::Malformed("it is another kind of pickle");
  next(), next();
  const pickle::Document object = next(), keys = next();
  std::map<std::string, torch::ScalarType> types;
  for (const pickle::Value& value : object.values()) {
    if (const auto id = storage_id(value)) types.emplace(id->key, id->type);
  }
  std::map<std::string, Storage> storages;
  const auto* names = keys.root().as<pickle::Sequence>();
  if (names == nullptr) throw pickle::Malformed("it has no list of its storages");
  for (const pickle::Value* key : names->items) {
    const auto* text = key->as<std::string>();
    const auto type = text != nullptr ? types.find(*text) : types.end();
    if (type == types.end()) throw pickle::Malformed("it has a storage of no known type");
    std::int64_t elements = 0;
    if (rest.size() < sizeof elements) throw pickle::Malformed("it ends in the middle");
    std::memcpy(&elements, rest.data(), sizeof elements);
    rest.remove_prefix(sizeof elements);
    const std::size_t size = torch::elementSize(type->second);
    if (elements < 0 || static_cast<std::uint64_t>(elements) > rest.size() / size)
      throw pickle::Malformed("it ends in the middle");
    const Storage storage = torch::empty({elements}, type->second);
    if (elements > 0) std::memcpy(storage.data_ptr(), rest.data(), storage.nbytes());
    rest.remove_prefix(storage.nbytes());
    storages[*text] = storage;
  }
  const auto source = [&](const StorageId& id) {
    const auto found = storages.find(id.key);
    if (found == storages.end() || found->second.scalar_type() != id.type)
      throw pickle::Malformed("one of its storages is missing");
    return found->second;
  };
  return tensors_in(object, source, name);
}

const char* storage_class(const std::string& name, torch::ScalarType type) {
  for (const StorageClass& known : storage_classes) {
    if (known.type == type) return known.name;
  }
  throw UsageError(fmt::format("'{}' has the type {}, which not every PyTorch reads", name, torch::toString(type)));
}

/// What Python calls to make the tensor again: torch._utils._rebuild_tensor_v2(storage, 0, sizes, strides, False, OrderedDict()).
void add_tensor(pickle::Writer& out, const std::string& key, const char* kind, const torch::Tensor& tensor) {
  const auto tuple = [&](const auto& numbers) {
    out.begin();
    for (const std::int64_t number : numbers) out.number(number);
    out.end_tuple();
  };
  out.global("torch._utils", "_rebuild_tensor_v2");
  out.begin();
  out.begin();
  out.text("storage");
  out.global("torch", kind);
  out.text(key);
  out.text("cpu");
  out.number(tensor.numel());
  out.end_tuple();
  out.outside();
  out.number(0);
  tuple(tensor.sizes());
  tuple(tensor.strides());
  out.boolean(false);
  out.global("collections", "OrderedDict");
  out.begin();
  out.end_tuple();
  out.call();
  out.end_tuple();
  out.call();
}

}  // namespace

std::string state_dict_bytes(const NamedTensors& tensors) {
  std::vector<torch::Tensor> plain;
  pickle::Writer index;
  index.empty_dictionary();
  index.begin();
  for (const auto& [name, tensor] : tensors) {
    const char* kind = storage_class(name, tensor.scalar_type());
    index.text(name);
    plain.push_back(tensor.detach().cpu().contiguous());
    add_tensor(index, std::to_string(plain.size() - 1), kind, plain.back());
  }
  index.end_items();
  std::string bytes;
  caffe2::serialize::PyTorchStreamWriter archive([&](const void* data, std::size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  const auto add = [&](const std::string& record, std::string_view content) {
    archive.writeRecord(record, content.data(), content.size());
  };
  add("data.pkl", index.finish());
  add("byteorder", std::endian::native == std::endian::little ? "little" : "big");
  for (std::size_t i = 0; i < plain.size(); ++i) {
    add(fmt::format("data/{}", i), {static_cast<const char*>(plain[i].data_ptr()), plain[i].nbytes()});
  }
  archive.writeEndOfFile();
  return bytes;
}

NamedTensors read_state_dict(std::istream& file, const std::string& name) {
  try {
    if (file.peek() == 'P') return read_archive(file, name);  // "PK"; no pickle that we know begins so
    return read_stream({std::istreambuf_iterator<char>(file), {}}, name);
  } catch (const pickle::Malformed& error) {
    throw DataError(fmt::format("{} cannot be read as weights, {}: {}", name, error.what(), wanted));
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;
    throw DataError(fmt::format("{} is damaged, or an archive of something else: {}", name, wanted));
  }
}

}  // namespace rubato
