// memory.cpp — see memory.h.
#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gv {

Buffer::Buffer(index bytes) {
  if (bytes <= 0) return;
  constexpr index kHugePage = index(1) << 21;
  const index alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  void* block = nullptr;
  if (posix_memalign(&block, std::size_t(alignment), std::size_t(bytes)) != 0) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= kHugePage) madvise(block, std::size_t(bytes), MADV_HUGEPAGE);
#endif
  std::memset(block, 0, std::size_t(bytes));
  data_ = static_cast<char*>(block);
  size_ = bytes;
}

Buffer::~Buffer() { std::free(data_); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace gv
