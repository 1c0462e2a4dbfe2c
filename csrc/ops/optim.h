// optim.h — updates of flat arrays dealt by elements, and the sum of squares behind a gradient's
// norm, dealt by chunks that are added in ascending order. The rules are in kernels/optim.h.
#pragma once
#include <limits>

#include "../kernels/table.h"
#include "deal.h"

namespace gv::ops {

template <class T> struct SgdUpdate {
  index n;
  T* param;
  const T* grad;
  T* velocity;  // may be null when momentum is 0
  kernels::SgdParams params;
};

template <class T> struct AdamUpdate {
  index n;
  T* param;
  const T* grad;
  T *exp_avg, *exp_avg_sq;
  kernels::AdamParams params;
};

template <class T> struct Scale {
  index n;
  T* x;
  T factor;
};

template <class T> struct SumOfSquares {
  index n;
  const T* x;
  double* chunks;  // out: one sum for each kRowChunk elements
};

constexpr index chunks_of(index n) { return (n + kRowChunk - 1) / kRowChunk; }

template <class T>
void run(const kernels::Kernels<T>& k, const SgdUpdate<T>& g, int worker, int workers) noexcept {
  const Range part = share(g.n, 64, worker, workers);
  k.sgd(part.size(), g.param + part.first, g.grad + part.first,
        g.velocity ? g.velocity + part.first : nullptr, g.params);
}

template <class T>
void run(const kernels::Kernels<T>& k, const AdamUpdate<T>& g, int worker, int workers) noexcept {
  const Range part = share(g.n, 64, worker, workers);
  k.adam(part.size(), g.param + part.first, g.grad + part.first, g.exp_avg + part.first,
         g.exp_avg_sq + part.first, g.params);
}

template <class T>
void run(const kernels::Kernels<T>& k, const Scale<T>& g, int worker, int workers) noexcept {
  const Range part = share(g.n, 64, worker, workers);
  k.scale(part.size(), g.x + part.first, g.factor);
}

// Σ x² of one chunk. Squares of floats overflow, and sink below the normal numbers, long before their norm does; then
// they are found again of x times a power of two. A sum so large that what sinks is less than its last bit lost nothing.
inline double chunk_of_squares(const kernels::Kernels<float>& k, index n, const float* x) {
  using Float = std::numeric_limits<float>;
  constexpr float kUp = 0x1p100f, kDown = 0x1p-70f;
  const double sum = k.sum_of_squares(n, x, 1);
  if (sum >= double(n) * Float::min() / Float::epsilon() && sum <= std::numeric_limits<double>::max())
    return sum;
  const float scale = sum < 1 ? kUp : kDown;
  return k.sum_of_squares(n, x, scale) / (double(scale) * double(scale));
}
inline double chunk_of_squares(const kernels::Kernels<double>& k, index n, const double* x) {
  return k.sum_of_squares(n, x, 1);
}

template <class T>
void run(const kernels::Kernels<T>& k, const SumOfSquares<T>& g, int worker, int workers) noexcept {
  const Range part = share(chunks_of(g.n), 1, worker, workers);
  for (index c = part.first; c < part.last; ++c) {
    const index first = c * kRowChunk, n = g.n - first < kRowChunk ? g.n - first : kRowChunk;
    g.chunks[c] = chunk_of_squares(k, n, g.x + first);
  }
}

}  // namespace gv::ops
