// random.h — arrays of random numbers dealt by elements, and a random permutation. What a number
// is depends on key and element alone: kernels/random.h.
#pragma once
#include <cstdint>

#include "../kernels/table.h"
#include "deal.h"

namespace gv::ops {

enum class Distribution : std::uint8_t { uniform, normal };

template <class T> struct RandomFill {
  Distribution distribution;
  index n;
  kernels::PhiloxKey key;
  double first, second;  // low and high, or mean and standard deviation
  T* y;
};

template <class T>
void run(const kernels::Kernels<T>& k, const RandomFill<T>& g, int worker, int workers) noexcept {
  const Range part = share(g.n, 64, worker, workers);
  const auto kernel = g.distribution == Distribution::uniform ? k.uniform : k.normal;
  kernel(part.size(), std::uint64_t(part.first), g.key, g.first, g.second, g.y + part.first);
}

// A permutation of 0 … n-1, every one as likely (Fisher & Yates; bounded integers without bias as
// in Lemire 2019, arXiv 1805.10941). Serial, the same on every instruction set.
void permutation(const kernels::Kernels<double>& k, index n, kernels::PhiloxKey key,
                 std::int64_t* out) noexcept;

}  // namespace gv::ops
