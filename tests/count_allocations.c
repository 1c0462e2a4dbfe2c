/* Counts what a process asks of the allocator and of the system for memory, on all threads; loaded
   before everything else with LD_PRELOAD. Not part of the library: test_allocation.py builds it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

static atomic_long counted;
long allocations(void) { return atomic_load(&counted); }

static void* (*next_malloc)(size_t);
static void* (*next_calloc)(size_t, size_t);
static void* (*next_realloc)(void*, size_t);
static void (*next_free)(void*);
static int (*next_posix_memalign)(void**, size_t, size_t);
static void* (*next_aligned_alloc)(size_t, size_t);
static void* (*next_memalign)(size_t, size_t);
static void* (*next_mmap)(void*, size_t, int, int, int, off_t);

/* The linker may allocate while it looks a name up: from here, and never given back. */
static _Alignas(64) char early[1 << 16];
static size_t early_used;
static void* from_early(size_t size) {
  void* block = early + early_used;
  early_used += (size + 63) / 64 * 64;
  return early_used <= sizeof early ? block : NULL;
}
static int is_early(void* block) { return (char*)block >= early && (char*)block < early + sizeof early; }

static void find(void) {
  static int busy;
  if (busy || next_mmap) return;
  busy = 1;
  next_free = dlsym(RTLD_NEXT, "free");
  next_calloc = dlsym(RTLD_NEXT, "calloc");
  next_realloc = dlsym(RTLD_NEXT, "realloc");
  next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
  next_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
  next_memalign = dlsym(RTLD_NEXT, "memalign");
  next_malloc = dlsym(RTLD_NEXT, "malloc");
  next_mmap = dlsym(RTLD_NEXT, "mmap");
  busy = 0;
}

static void count(void) {
  atomic_fetch_add(&counted, 1);
  if (!next_mmap) find();
}

void* malloc(size_t size) {
  count();
  return next_malloc ? next_malloc(size) : from_early(size);
}
void* calloc(size_t n, size_t size) {
  count();
  return next_calloc ? next_calloc(n, size) : from_early(n * size);
}
void* realloc(void* block, size_t size) {
  count();
  if (next_realloc && !is_early(block)) return next_realloc(block, size);
  void* moved = next_malloc ? next_malloc(size) : from_early(size);
  if (moved && block) {
    const size_t rest = (size_t)(early + sizeof early - (char*)block);
    memcpy(moved, block, size < rest ? size : rest);
  }
  return moved;
}
void free(void* block) {
  if (block && !is_early(block) && next_free) next_free(block);
}
int posix_memalign(void** block, size_t alignment, size_t size) {
  count();
  return next_posix_memalign ? next_posix_memalign(block, alignment, size) : ENOMEM;
}
void* aligned_alloc(size_t alignment, size_t size) {
  count();
  return next_aligned_alloc ? next_aligned_alloc(alignment, size) : NULL;
}
void* memalign(size_t alignment, size_t size) {
  count();
  return next_memalign ? next_memalign(alignment, size) : NULL;
}
void* mmap(void* at, size_t size, int protection, int flags, int file, off_t offset) {
  count();
  return next_mmap ? next_mmap(at, size, protection, flags, file, offset) : MAP_FAILED;
}
void* mmap64(void* at, size_t size, int protection, int flags, int file, off_t offset) {
  return mmap(at, size, protection, flags, file, offset);
}
