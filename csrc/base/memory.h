// memory.h — one block of aligned memory, owned, and big blocks that are lent. Big blocks ask for huge
// pages.
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

// A big block, not zeroed, and back. The last two that came back are kept for the next that fits, because
// the system zeroes what it hands out, which takes longer than to write it; while they are kept the system
// may take their pages if it needs them. nullptr: no memory.
constexpr index kBigBlock = index(1) << 25;  // below it the C library keeps freed memory by itself
char* lend(index bytes);
void give_back(char* block);

inline index aligned(index bytes) {
  return (bytes + Buffer::kAlignment - 1) / Buffer::kAlignment * Buffer::kAlignment;
}

}  // namespace gv
