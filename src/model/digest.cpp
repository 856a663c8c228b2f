#include "rubato/model/digest.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <array>
#include <cstdint>

namespace rubato {

Digest::Digest() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(context_, EVP_sha256(), nullptr);
}
Digest::~Digest() {
  EVP_MD_CTX_free(context_);
}

void Digest::add_bytes(const void* data, std::size_t size) {
  EVP_DigestUpdate(context_, data, size);
}

void Digest::add(const std::string& name, const torch::Tensor& tensor) {
  add_bytes(name.data(), name.size() + 1);
  const torch::Tensor plain = tensor.detach().cpu().contiguous();
  const std::string type = torch::toString(plain.scalar_type());
  add_bytes(type.data(), type.size() + 1);
  for (const std::int64_t size : plain.sizes()) add_bytes(&size, sizeof size);
  add_bytes(plain.data_ptr(), plain.nbytes());
}

std::string Digest::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes;
  unsigned int size = 0;
  EVP_DigestFinal_ex(context_, bytes.data(), &size);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    constexpr char digits[] = "0123456789abcdef";
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

std::uint64_t checksum(const std::vector<torch::Tensor>& tensors) {
  XXH64_hash_t hash = 0;
  for (const torch::Tensor& tensor : tensors) {
    const torch::Tensor plain = tensor.detach().cpu().contiguous();
    hash = XXH3_64bits_withSeed(plain.data_ptr(), plain.nbytes(), hash);
  }
  return hash;
}

}  // namespace rubato
