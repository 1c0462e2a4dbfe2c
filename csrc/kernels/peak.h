// peak.h — what the processor can do at most, for the benchmarks: fused multiply-adds that stay in
// registers, and a sum of two arrays that stays in memory. Not part of any computation of a net.
// The count of bytes is that of McCalpin's STREAM (1995), with an array that is read and written, so
// that a cache which first fetches the line it is to write moves no byte that is not counted.
// Signatures: table.h.
#pragma once
#include "rowsum.h"
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// Two ports of latency 4 or 5 need 8 to 10 chains; 12 and the two constants fit 16 registers.
constexpr int kChains = 12;

template <class T> double fma_chains(index rounds, T* sink) noexcept {
  const vec<T> factor = set1<T>(sink[0]), term = set1<T>(sink[1]);
  vec<T> x0 = factor, x1 = x0 + term, x2 = x1 + term, x3 = x2 + term, x4 = x3 + term, x5 = x4 + term;
  vec<T> x6 = x5 + term, x7 = x6 + term, x8 = x7 + term, x9 = x8 + term, x10 = x9 + term, x11 = x10 + term;
  for (index i = 0; i < rounds; ++i) {
    x0 = fma(x0, factor, term);
    x1 = fma(x1, factor, term);
    x2 = fma(x2, factor, term);
    x3 = fma(x3, factor, term);
    x4 = fma(x4, factor, term);
    x5 = fma(x5, factor, term);
    x6 = fma(x6, factor, term);
    x7 = fma(x7, factor, term);
    x8 = fma(x8, factor, term);
    x9 = fma(x9, factor, term);
    x10 = fma(x10, factor, term);
    x11 = fma(x11, factor, term);
  }
  const vec<T> sum = (((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))) + ((x8 + x9) + (x10 + x11));
  sink[2] = sum[0];
  return 2.0 * kChains * double(lanes<T>()) * double(rounds);
}

template <class T> void add_scaled(index n, T factor, const T* x, T* y) noexcept {
  const vec<T> f = set1<T>(factor);
  for_row<T>(n, [&](index i, auto k) { store_n(y + i, fma(f, load_n(x + i, k), load_n(y + i, k)), k); });
}

template <class T> constexpr void add_peak(Kernels<T>& k) {
  k.fma_chains = &fma_chains<T>;
  k.add_scaled = &add_scaled<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
