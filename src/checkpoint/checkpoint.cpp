#include "rubato/checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "checkpoint/progress_json.h"
#include "rubato/core/error.h"
#include "rubato/core/json_text.h"
#include "rubato/core/read_file.h"
#include "rubato/io/files.h"
#include "rubato/model/digest.h"
#include "rubato/model/memory_error.h"
#include "rubato/model/model.h"
#include "rubato/model/state_dict.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

constexpr std::size_t kept = 2;

/// Size and SHA-256 of what passes by.
struct Facts {
  std::size_t bytes = 0;
  Digest digest;
  void add(std::string_view part) {
    bytes += part.size();
    digest.add_bytes(part.data(), part.size());
  }
};

/// Writes what `content` hands over and returns its size and SHA-256.
nlohmann::ordered_json write_file(const fs::path& path, FunctionRef<void(const std::function<void(std::string_view)>&)> content) {
  SyncedFile file(path);
  Facts facts;
  content([&](std::string_view part) {
    facts.add(part);
    file.write(part);
  });
  file.finish();
  return {{"bytes", facts.bytes}, {"sha256", facts.digest.hex()}};
}

/// Tensor by tensor, so that the state of a large run is never in memory a second time.
nlohmann::ordered_json write_state(const fs::path& path, const Restorable& state) {
  torch::serialize::OutputArchive archive;
  state.save(archive);
  return write_file(path, [&](const std::function<void(std::string_view)>& sink) {
    archive.save_to([&](const void* data, std::size_t size) {
      sink({static_cast<const char*>(data), size});
      return size;
    });
  });
}

constexpr const char* before_the_step = "-step-";

/// Of a checkpoint's folder; nothing: the name is another's.
std::optional<std::int64_t> serial_of(const std::string& name) {
  std::int64_t serial = 0, step = 0;
  const char* const end = name.data() + name.size();
  const auto [after, wrong] = std::from_chars(name.data(), end, serial);
  const std::string_view rest(after, static_cast<std::size_t>(end - after));
  if (wrong != std::errc() || serial < 1 || !rest.starts_with(before_the_step)) return std::nullopt;
  const auto [last, bad] = std::from_chars(after + std::string_view(before_the_step).size(), end, step);
  return bad == std::errc() && last == end ? std::optional(serial) : std::nullopt;
}

constexpr const char* vocabulary_file = "vocabulary.json";

/// DataError when `state`, the content of `folder`'s state.json, names too few files or others than a checkpoint has.
void check_list(const nlohmann::ordered_json& state, const fs::path& folder) {
  const std::string file = (folder / "state.json").string();
  if (!state.contains("files") || !state.at("files").is_object()) throw DataError(file + " is damaged: it lists no files");
  const auto& files = state.at("files");
  std::set<std::string> expected = {"weights.pt", "state.pt", "config.toml"};
  if (fs::exists(folder / vocabulary_file)) expected.insert(vocabulary_file);
  for (const std::string& name : expected) {
    if (!files.contains(name)) throw DataError(fmt::format("{} is damaged: it does not list {}", file, name));
  }
  expected.insert(vocabulary_file);
  for (const auto& [name, facts] : files.items()) {
    const bool known = expected.contains(name) && facts.is_object() && facts.contains("bytes") && facts.contains("sha256");
    if (!known) throw DataError(fmt::format("{} is damaged: '{}' is in its list of files", file, name));
  }
}

/// Throws DataError with the reason when a file of the checkpoint is missing or damaged.
Progress verified(const fs::path& folder) {
  const std::string file = (folder / "state.json").string();
  const nlohmann::ordered_json state = unsealed(read_file(file), file);
  check_list(state, folder);
  for (const auto& [name, facts] : state.at("files").items()) {
    Facts found;
    read_in_parts(folder / name, [&](std::string_view part) { found.add(part); });
    if (facts.at("bytes") != found.bytes) {
      throw DataError(
          fmt::format("{} has {} bytes, {} expected", (folder / name).string(), found.bytes, facts.at("bytes").dump()));
    }
    if (facts.at("sha256") != found.digest.hex()) {
      throw DataError((folder / name).string() + " is damaged (SHA-256 differs)");
    }
  }
  return progress_from(state, file);
}

std::string vocabulary_json(const std::string& vocabulary) {
  nlohmann::ordered_json bytes = nlohmann::ordered_json::array();
  for (const char character : vocabulary) bytes.push_back(static_cast<std::uint8_t>(character));
  return nlohmann::ordered_json{{"bytes", bytes}}.dump() + "\n";
}

}  // namespace

std::string weights_file(const WeightStore& store) {
  NamedTensors weights;
  for (int block = 0; block < store.block_count(); ++block) {
    const Snapshot now = store.result(block);
    const auto add = [&](const std::vector<std::string>& names, const std::vector<torch::Tensor>& tensors) {
      for (std::size_t i = 0; i < names.size(); ++i) weights.emplace_back(names[i], tensors[i]);
    };
    add(store.parameter_names(block), now.parameters->tensors);
    add(store.buffer_names(block), now.buffers->tensors);
  }
  return state_dict_bytes(weights);
}

void CheckpointFolder::write(const Progress& progress, const WeightStore& weights, const Restorable& state,
                             const std::string& config, const std::string& vocabulary) {
  const auto before = by_age();
  const std::int64_t serial = before.empty() ? 1 : *serial_of(before.front().filename()) + 1;
  const std::string name = fmt::format("{:06}{}{}", serial, before_the_step, progress.step);
  const fs::path draft = folder_ / (name + ".tmp"), final = folder_ / name;
  std::error_code ignored;
  fs::remove_all(draft, ignored);
  try {
    fs::create_directory(folder_);  // never the run folder above it: one that has gone is not made again
    fs::create_directory(draft);
    nlohmann::ordered_json facts = to_json(progress);
    const auto add = [&](const std::string& file, const std::string& content) {
      facts["files"][file] = write_file(draft / file, [&](const auto& sink) { sink(content); });
    };
    add("weights.pt", weights_file(weights));
    facts["files"]["state.pt"] = write_state(draft / "state.pt", state);
    add("config.toml", config);
    if (!vocabulary.empty()) add(vocabulary_file, vocabulary_json(vocabulary));
    write_synced(draft / "state.json", sealed(std::move(facts)));
    sync_folder(draft);
    fs::rename(draft, final);
    sync_folder(folder_);
    write_atomically(folder_ / "latest", name + "\n");
  } catch (const fs::filesystem_error& error) {
    throw DataError("cannot write a checkpoint, " + sentence_of(error));
  } catch (const DataError&) {
    fs::remove_all(draft, ignored);
    throw;
  }
  const auto all = by_age();
  for (std::size_t i = kept; i < all.size(); ++i) fs::remove_all(all[i], ignored);
}

std::vector<fs::path> CheckpointFolder::by_age() const {
  std::vector<fs::path> folders;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    if (is_name(entry.path().filename())) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end(),
            [](const fs::path& a, const fs::path& b) { return *serial_of(a.filename()) > *serial_of(b.filename()); });
  return folders;
}

bool CheckpointFolder::is_name(const std::string& name) {
  return serial_of(name).has_value();
}

std::optional<CheckpointFolder::Found> CheckpointFolder::newest(std::vector<std::string>* rejected) const {
  for (const fs::path& folder : by_age()) {
    try {
      return Found{folder, verified(folder)};
    } catch (const DataError& error) {
      if (rejected != nullptr) rejected->push_back(error.what());
    }
  }
  return std::nullopt;
}

void CheckpointFolder::load(const Found& found, Restorable& state) {
  try {
    torch::serialize::InputArchive archive;
    std::istringstream bytes(read_file(found.folder / "state.pt"));
    archive.load_from(bytes);
    state.load(archive);
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;
    throw DataError(
        fmt::format("{} does not fit this model: {}", (found.folder / "state.pt").string(), error.what_without_backtrace()));
  }
}

std::optional<std::string> find_vocabulary(const fs::path& file) {
  const fs::path beside = file.parent_path() / vocabulary_file;
  if (!fs::exists(beside)) return std::nullopt;
  const auto json = json_object(read_file(beside), beside.string());
  const auto wrong = [&] { return DataError(beside.string() + " must have a list of numbers from 0 to 255 as 'bytes'"); };
  if (!json.contains("bytes") || !json.at("bytes").is_array()) throw wrong();
  std::string vocabulary;
  for (const auto& byte : json.at("bytes")) {
    if (!byte.is_number_unsigned() || byte.get<std::uint64_t>() > 255) throw wrong();
    vocabulary += static_cast<char>(byte.get<std::uint8_t>());
  }
  return vocabulary;
}

fs::path find_weights(const fs::path& path, std::vector<std::string>* rejected) {
  if (fs::is_regular_file(path)) return path;
  if (fs::is_regular_file(path / "weights.pt")) {
    if (fs::exists(path / "state.json")) verified(path);
    return path / "weights.pt";
  }
  std::vector<std::string> damaged;
  for (const fs::path& folder : {path / "checkpoint", path}) {
    const auto found = CheckpointFolder(folder).newest(&damaged);
    if (found && rejected != nullptr) *rejected = damaged;
    if (found) return found->folder / "weights.pt";
  }
  throw DataError(fmt::format("{} holds no complete checkpoint{}: give a run folder, a checkpoint or a .pt file", path.string(),
                              damaged.empty() ? "" : " (" + damaged.front() + ")"));
}

void load_weights(const fs::path& file, Model& model) {
  errno = 0;
  std::ifstream content(file, std::ios::binary);
  if (!content) throw DataError(fmt::format("cannot read {}: {}", file.string(), std::strerror(errno)));
  std::map<std::string, torch::Tensor> tensors;
  for (auto& [name, tensor] : read_state_dict(content, file.string())) tensors[name] = tensor;
  torch::NoGradGuard no_grad;
  std::set<std::string> wanted;
  for (const Block& block : model.blocks) {
    for (const std::string& name : block.module.ptr()->named_parameters().keys()) wanted.insert(block.name + "." + name);
    for (const std::string& name : block.module.ptr()->named_buffers().keys()) wanted.insert(block.name + "." + name);
  }
  for (const auto& [name, tensor] : tensors) {
    if (wanted.contains(name)) continue;
    throw DataError(
        fmt::format("{} has a tensor '{}', the model {} has none of that name: are these the weights of another model?",
                    file.string(), name, model.name));
  }
  for (const Block& block : model.blocks) {
    const auto copy = [&](const std::string& name, torch::Tensor target) {
      const auto found = tensors.find(block.name + "." + name);
      if (found == tensors.end()) throw DataError(fmt::format("{} has no tensor '{}.{}'", file.string(), block.name, name));
      if (found->second.sizes() != target.sizes()) {
        throw DataError(fmt::format("{}: '{}.{}' has shape {}, the model needs {}", file.string(), block.name, name,
                                    c10::str(found->second.sizes()), c10::str(target.sizes())));
      }
      target.copy_(found->second);
    };
    for (const auto& item : block.module.ptr()->named_parameters()) copy(item.key(), item.value());
    for (const auto& item : block.module.ptr()->named_buffers()) copy(item.key(), item.value());
  }
}

}  // namespace rubato
