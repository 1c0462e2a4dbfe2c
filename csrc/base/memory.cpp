// memory.cpp — see memory.h.
#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gv {
namespace {

constexpr index kHugePage = index(1) << 21;

char* allocate(index bytes) {
  const index alignment = bytes >= kHugePage ? kHugePage : Buffer::kAlignment;
  void* block = nullptr;
  if (posix_memalign(&block, std::size_t(alignment), std::size_t(bytes)) != 0) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= kHugePage) madvise(block, std::size_t(bytes), MADV_HUGEPAGE);
#endif
  return static_cast<char*>(block);
}

// The size of a lent block stands in the line before it.
struct Kept {
  std::mutex mutex;
  char* blocks[2] = {};  // the last that came back, the one before
};
Kept& kept() {
  static Kept* const only = new Kept;  // never destroyed: arrays outlive the static objects
  return *only;
}
index& size_of(char* block) { return *reinterpret_cast<index*>(block - Buffer::kAlignment); }
void release(char* block) {
  if (block) std::free(block - Buffer::kAlignment);
}

}  // namespace

char* lend(index bytes) {
  {
    Kept& k = kept();
    const std::lock_guard<std::mutex> lock(k.mutex);
    for (char*& block : k.blocks) {
      if (!block || size_of(block) < bytes || size_of(block) / 4 * 3 > bytes) continue;
      char* found = block;
      block = nullptr;
      return found;
    }
  }
  char* memory = allocate(bytes + Buffer::kAlignment);
  if (!memory) return nullptr;
  size_of(memory + Buffer::kAlignment) = bytes;
  return memory + Buffer::kAlignment;
}

void give_back(char* block) {
#if defined(__linux__) && defined(MADV_FREE)
  // All but the page of the size: what the system takes comes back as zeros.
  constexpr index kPage = 4096;
  madvise(block - Buffer::kAlignment + kPage, std::size_t((size_of(block) - kPage) / kPage * kPage),
          MADV_FREE);
#endif
  Kept& k = kept();
  const std::lock_guard<std::mutex> lock(k.mutex);
  release(k.blocks[1]);
  k.blocks[1] = k.blocks[0];
  k.blocks[0] = block;
}

Buffer::Buffer(index bytes) {
  if (bytes <= 0) return;
  data_ = allocate(bytes);
  if (!data_) throw std::bad_alloc();
  std::memset(data_, 0, std::size_t(bytes));
  size_ = bytes;
}

Buffer::~Buffer() { std::free(data_); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace gv
