// past.h — when a result is written past the caches: not one that is to be read soon and would still be
// there. No arithmetic.
#pragma once
#include "../base/types.h"

namespace gv::ops {

constexpr index kPastBytes = index(1) << 25;  // above what one process finds free in a shared last cache

inline bool worth_past(index bytes) { return bytes >= kPastBytes; }

}  // namespace gv::ops
