// caches.h — the caches of one processor. They decide how products are cut, never what they give.
#pragma once
#include "types.h"

namespace gv {

struct Caches {
  index first, second;  // bytes of data in L1 and in L2
};

const Caches& caches() noexcept;

// As the system reports them; where it does not, common sizes stay. GVCORE_CACHES="32,1024" (KiB) says otherwise, so
// that what is done for other processors can be tried on this one; throws std::invalid_argument when it cannot be
// read. Called once, when the module is imported: what was planned relies on them.
void find_caches();

}  // namespace gv
