// optim.h — updates of flat arrays dealt by elements, and the sum of squares behind a gradient's
// norm, dealt by chunks that are added in ascending order. The rules are in kernels/optim.h.
#pragma once
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

template <class T>
void run(const kernels::Kernels<T>& k, const SumOfSquares<T>& g, int worker, int workers) noexcept {
  const Range part = share(chunks_of(g.n), 1, worker, workers);
  for (index c = part.first; c < part.last; ++c) {
    const index first = c * kRowChunk, n = g.n - first < kRowChunk ? g.n - first : kRowChunk;
    double sum = k.sum_of_squares(n, g.x + first);
    if (!(sum <= 1.7976931348623157e308)) {  // float squares overflow long before their norm does
      sum = 0;
      for (index i = 0; i < n; ++i) sum += double(g.x[first + i]) * double(g.x[first + i]);
    }
    g.chunks[c] = sum;
  }
}

}  // namespace gv::ops
