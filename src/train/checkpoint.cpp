#include "rubato/train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "rubato/core/error.h"
#include "rubato/model/digest.h"
#include "rubato/model/model.h"
#include "rubato/train/files.h"

namespace fs = std::filesystem;

namespace rubato {
namespace {

constexpr int format_version = 2;
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

nlohmann::ordered_json to_json(const Progress& progress) {
  nlohmann::ordered_json json = {{"format", format_version},
                                 {"step", progress.step},
                                 {"seconds", progress.seconds},
                                 {"virtual_seconds", progress.virtual_seconds}};
  if (progress.seconds_to_target) json["seconds_to_target"] = *progress.seconds_to_target;
  return json;
}

/// Throws DataError with the reason when a file of the checkpoint is missing or damaged.
Progress verified(const fs::path& folder) {
  try {
    const auto json = nlohmann::json::parse(read_file(folder / "state.json"));
    if (json.at("format") != format_version) {
      throw DataError(
          fmt::format("{} has format {}, this rubato reads {}", folder.string(), json.at("format").dump(), format_version));
    }
    for (const auto& [name, facts] : json.at("files").items()) {
      Facts found;
      read_in_parts(folder / name, [&](std::string_view part) { found.add(part); });
      if (found.bytes != facts.at("bytes").get<std::size_t>()) {
        throw DataError(
            fmt::format("{} has {} bytes, {} expected", (folder / name).string(), found.bytes, facts.at("bytes").dump()));
      }
      if (found.digest.hex() != facts.at("sha256").get<std::string>())
        throw DataError((folder / name).string() + " is damaged (SHA-256 differs)");
    }
    Progress progress{.step = json.at("step"), .seconds = json.at("seconds"), .virtual_seconds = json.at("virtual_seconds")};
    if (json.contains("seconds_to_target")) progress.seconds_to_target = json.at("seconds_to_target").get<double>();
    return progress;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{} is malformed: {}", (folder / "state.json").string(), error.what()));
  }
}

}  // namespace

std::string weights_file(const WeightStore& store) {
  c10::Dict<std::string, at::Tensor> weights;
  for (int block = 0; block < store.block_count(); ++block) {
    const Snapshot now = store.result(block);
    const auto add = [&](const std::vector<std::string>& names, const std::vector<torch::Tensor>& tensors) {
      for (std::size_t i = 0; i < names.size(); ++i) weights.insert(names[i], tensors[i].detach().cpu().clone());
    };
    add(store.parameter_names(block), now.parameters->tensors);
    add(store.buffer_names(block), now.buffers->tensors);
  }
  const std::vector<char> bytes = torch::pickle_save(weights);
  return {bytes.begin(), bytes.end()};
}

void CheckpointFolder::write(const Progress& progress, const WeightStore& answer, const Restorable& state,
                             const std::string& config) {
  const std::string name = fmt::format("step-{:09}", progress.step);
  const fs::path draft = folder_ / (name + ".tmp"), final = folder_ / name;
  std::error_code ignored;
  fs::remove_all(draft, ignored);
  try {
    fs::create_directories(draft);
    nlohmann::ordered_json facts = to_json(progress);
    const auto add = [&](const std::string& file, const std::string& content) {
      facts["files"][file] = write_file(draft / file, [&](const auto& sink) { sink(content); });
    };
    add("weights.pt", weights_file(answer));
    facts["files"]["state.pt"] = write_state(draft / "state.pt", state);
    add("config.toml", config);
    write_synced(draft / "state.json", facts.dump(2) + "\n");
    sync_folder(draft);
    fs::remove_all(final);
    fs::rename(draft, final);
    sync_folder(folder_);
    write_atomically(folder_ / "latest", name + "\n");
  } catch (const fs::filesystem_error& error) {
    throw DataError(std::string("cannot write a checkpoint: ") + error.what());
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
    const std::string name = entry.path().filename();
    if (name.starts_with("step-") && !name.ends_with(".tmp")) folders.push_back(entry.path());
  }
  std::sort(folders.rbegin(), folders.rend());
  return folders;
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
    throw DataError(
        fmt::format("{} does not fit this model: {}", (found.folder / "state.pt").string(), error.what_without_backtrace()));
  }
}

fs::path find_weights(const fs::path& path) {
  if (fs::is_regular_file(path)) return path;
  if (fs::is_regular_file(path / "weights.pt")) return path / "weights.pt";
  for (const fs::path& folder : {path / "checkpoint", path}) {
    if (const auto found = CheckpointFolder(folder).newest()) return found->folder / "weights.pt";
  }
  throw DataError(fmt::format("{} holds no complete checkpoint: give a run folder, a checkpoint or a .pt file", path.string()));
}

void load_weights(const fs::path& file, Model& model) {
  const std::string content = read_file(file);
  std::map<std::string, torch::Tensor> tensors;
  try {
    const torch::IValue value = torch::pickle_load({content.begin(), content.end()});
    for (const auto& item : value.toGenericDict()) {
      if (item.value().isTensor()) tensors[item.key().toStringRef()] = item.value().toTensor();
    }
  } catch (const std::exception&) {
    throw DataError(file.string() + " is not a dictionary of tensors by name, as torch.save(model.state_dict(), path) writes it");
  }
  torch::NoGradGuard no_grad;
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
