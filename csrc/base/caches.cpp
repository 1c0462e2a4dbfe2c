// caches.cpp — see caches.h.
#include "caches.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace gv {
namespace {

Caches found{32 << 10, 1 << 20};

}  // namespace

const Caches& caches() noexcept { return found; }

void find_caches() {
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
  if (const long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE); bytes > 0) found.first = bytes;
  if (const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE); bytes > 0) found.second = bytes;
#endif
  const char* const text = std::getenv("GVCORE_CACHES");
  if (!text || !*text) return;
  int first = 0, second = 0;
  char more = 0;
  if (std::sscanf(text, "%6d,%7d%c", &first, &second, &more) != 2 || first < 1 || second < 1)
    throw std::invalid_argument(
        "[caches] expected GVCORE_CACHES to be the KiB of L1 and L2, such as 32,1024, got " +
        std::string(text));
  found = {index(first) << 10, index(second) << 10};
}

}  // namespace gv
