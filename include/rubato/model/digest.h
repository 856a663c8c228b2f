#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "rubato/tensor/tensor.h"

struct evp_md_ctx_st;

namespace rubato {

/// SHA-256 over named tensors.
class Digest {
 public:
  Digest();
  ~Digest();
  void add(const std::string& name, const torch::Tensor& tensor);
  void add_bytes(const void* data, std::size_t size);
  /// Lower-case hexadecimal; ends the digest.
  std::string hex();

 private:
  evp_md_ctx_st* context_;
};

/// 64 bits (XXH3) over the bytes of all tensors, in order: fast, to tell whether two runs computed the same.
std::uint64_t checksum(const std::vector<torch::Tensor>& tensors);

}  // namespace rubato
