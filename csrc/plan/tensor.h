// tensor.h — the memory that instructions read and write, before it has an address: a tensor is a
// number, a size affine in the batch, and a place. layout (program.h) gives those in the arena an offset.
#pragma once
#include <climits>
#include <new>
#include <vector>

#include "../base/types.h"

namespace gv::plan {

using TensorId = int;

enum class Place : std::uint8_t {
  arena,      // lives for some phases of a step
  kept,       // in the arena for the whole step, shares its memory with nobody
  parameter,  // the net's: addressed through Bindings
  gradient,   // the flat gradient buffer
  running     // running statistics of the net
};

struct Tensor {
  Place place = Place::arena;
  index per_sample = 0, fixed = 0;  // elements = per_sample * batch + fixed
  int element_bytes = 4;
  int owner = -1;                   // which parameter, gradient or running statistic
  int first_phase = INT_MAX, last_phase = -1;
  TensorId storage = -1;            // whose memory it uses: itself, or the tensor it overwrites

  // More than any memory is refused here, so that sums over all tensors of a program do not overflow.
  index bytes(index batch) const {
    constexpr double kMost = double(index(1) << 44);
    const double exact = (double(per_sample) * double(batch) + double(fixed)) * element_bytes;
    if (exact > kMost) throw std::bad_alloc();
    return (per_sample * batch + fixed) * element_bytes;
  }
};

// A tensor as an instruction holds it: the number, and the address once the plan is laid out.
struct Slot {
  TensorId id = -1;
  char* at = nullptr;
  explicit operator bool() const { return id >= 0; }
};
template <class E> struct Ref : Slot {
  E* get() const { return reinterpret_cast<E*>(at); }
};

}  // namespace gv::plan
