#include "rubato/wire/packing.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "rubato/model/recycler.h"

namespace rubato {
namespace wire_packing_test {

torch::Tensor through(const torch::Tensor& tensor) {
  Packed packed;
  pack(packed, tensor);
  Unpacker unpacker(packed);
  return unpack_tensor(unpacker);
}

TEST(Packing, tensors_come_out_as_they_went_in) {
  for (const torch::Tensor& tensor :
       {torch::randn({3, 4}), torch::arange(7), torch::empty({0, 5}), torch::tensor(2.5), torch::ones({2}, torch::kBool)}) {
    const torch::Tensor back = through(tensor);
    EXPECT_EQ(back.scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(torch::equal(back, tensor));
  }
  EXPECT_FALSE(through({}).defined());
}

TEST(Packing, contiguous_tensors_are_not_copied) {
  const torch::Tensor tensor = torch::randn({64, 64});
  EXPECT_EQ(through(tensor).data_ptr(), tensor.data_ptr());
}

/// Kernels choose by alignment, so results of processes and of threads would differ in the last bits.
TEST(Packing, tensors_that_come_over_a_socket_lie_as_libtorch_lays_its_own) {
  const torch::Tensor tensor = torch::randn({8, 8});
  for (const std::size_t offset : {4, 8, 16, 32}) {
    Packed packed;
    pack(packed, tensor);
    const auto frame = std::make_shared<std::vector<char>>(tensor.nbytes() + 128);
    void* at = frame->data();
    std::size_t space = frame->size();
    ASSERT_NE(std::align(64, tensor.nbytes(), at, space), nullptr);
    char* content = static_cast<char*>(at) + offset;
    std::memcpy(content, tensor.data_ptr(), tensor.nbytes());
    packed.tensors[0].content = {frame, content, tensor.nbytes()};
    Unpacker unpacker(packed);
    const torch::Tensor back = unpack_tensor(unpacker);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(back.data_ptr()) % 64, 0u) << "offset " << offset;
    EXPECT_TRUE(torch::equal(back, tensor));
  }
}

TEST(Packing, what_is_not_contiguous_keeps_its_values) {
  const torch::Tensor tensor = torch::randn({6, 8}).t();
  EXPECT_TRUE(torch::equal(through(tensor), tensor));
}

TEST(Packing, images_keep_their_memory_format) {
  const torch::Tensor image = torch::randn({2, 3, 4, 5}).contiguous(torch::MemoryFormat::ChannelsLast);
  const torch::Tensor back = through(image);
  EXPECT_TRUE(torch::equal(back, image));
  EXPECT_EQ(back.strides(), image.strides());
}

TEST(Packing, sets_keep_version_and_clock) {
  auto set = std::make_shared<TensorSet>(TensorSet{{torch::ones({2}), torch::zeros({3})}, 7, 5});
  Packed packed;
  pack(packed, std::vector<TensorSetPtr>{set, set});
  Unpacker unpacker(packed);
  const std::vector<TensorSetPtr> back = unpack_sets(unpacker);
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[1]->version, 7);
  EXPECT_EQ(back[1]->clock, 5);
  EXPECT_TRUE(torch::equal(back[1]->tensors[1], set->tensors[1]));
}

/// What has not been sent yet must not be overwritten by the weights after it.
TEST(Packing, the_memory_of_a_packed_set_is_not_given_to_the_next_one) {
  const auto recycler = std::make_shared<Recycler>();
  auto set = recycler->take({torch::empty({100})});
  set->tensors[0].fill_(1);
  auto packed = std::make_unique<Packed>();
  pack(*packed, TensorSetPtr(set));
  set.reset();
  auto next = recycler->take({torch::empty({100})});
  next->tensors[0].fill_(2);
  Unpacker unpacker(*packed);
  const TensorSetPtr back = unpack_set(unpacker);
  EXPECT_TRUE(torch::equal(back->tensors[0], torch::ones({100})));
}

TEST(Packing, anything_else_is_refused) {
  Packed packed;
  pack(packed, std::vector<torch::Tensor>{torch::ones({2})});
  packed.numbers.front() = 9;  // says that nine tensors follow
  Unpacker more(packed);
  EXPECT_THROW(unpack_tensors(more), PackError);
  packed.numbers.front() = -1;
  Unpacker negative(packed);
  EXPECT_THROW(unpack_tensors(negative), PackError);
  const Packed empty;
  Unpacker nothing(empty);
  EXPECT_THROW(unpack_set(nothing), PackError);
  Unpacker no_bytes(packed);
  EXPECT_THROW(unpack_bytes(no_bytes), PackError);
}

TEST(Packing, shapes_and_types_are_compared) {
  const std::vector<torch::Tensor> like = {torch::ones({2, 3}), torch::ones({4})};
  EXPECT_TRUE(same_shapes({torch::zeros({2, 3}), torch::zeros({4})}, like));
  EXPECT_TRUE(same_shapes({torch::zeros({2, 3}), {}}, like));
  EXPECT_FALSE(same_shapes({torch::zeros({3, 2}), torch::zeros({4})}, like));
  EXPECT_FALSE(same_shapes({torch::zeros({2, 3})}, like));
  EXPECT_FALSE(same_shapes({torch::zeros({2, 3}), torch::zeros({4}, torch::kInt64)}, like));
}

}  // namespace wire_packing_test
}  // namespace rubato
