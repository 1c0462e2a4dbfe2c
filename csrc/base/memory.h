// memory.h — one block of aligned memory, owned. Big blocks ask for huge pages.
#pragma once
#include "types.h"

namespace gv {

class Buffer {
 public:
  static constexpr index kAlignment = 64;

  Buffer() = default;
  explicit Buffer(index bytes);  // zeroed; throws std::bad_alloc
  ~Buffer();
  Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  char* data() const { return data_; }
  index size() const { return size_; }

 private:
  char* data_ = nullptr;
  index size_ = 0;
};

inline index aligned(index bytes) {
  return (bytes + Buffer::kAlignment - 1) / Buffer::kAlignment * Buffer::kAlignment;
}

}  // namespace gv
