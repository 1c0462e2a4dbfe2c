// tensor.h — the memory that instructions read and write, before it has an address: a tensor is a
// number, a size affine in the batch, and a place. layout.h gives those in the arena an offset.
#pragma once
#include <climits>
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

  index bytes(index batch) const { return (per_sample * batch + fixed) * element_bytes; }
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
