// batchnorm_along.h — the sums of batch normalisation over a block whose rows are short and come from memory. It is
// walked along its rows, for then memory sends ahead by itself, about twice as fast as lines that are asked for one
// by one. The partial sums, too many for registers, lie in L1. Formulas, order and bits are those of batchnorm.h.
// Signatures and contracts: table.h.
#pragma once
#include "batchnorm.h"
#include "rowsum.h"

namespace gv::kernels::GV_ISA {
namespace {

// Rows of at most kBytes bytes, one for every partial; their distance spreads them over the sets of L1.
template <class T, index kBytes> struct PartialRows {
  static constexpr index kDistance = (kBytes + kLineBytes) / index(sizeof(T));
  alignas(64) T values[kBlockPartials * kDistance];
  void clear(index cols) {
    for (int p = 0; p < kBlockPartials; ++p)
      for (index j = 0; j < cols; j += lanes<T>()) store(values + p * kDistance + j, vec<T>{});
  }
  T* of_row(index r) { return values + r % kBlockPartials * kDistance; }
  vec<T> total(index j) const {
    const T* p = values + j;
    return (load(p) + load(p + kDistance)) + (load(p + 2 * kDistance) + load(p + 3 * kDistance));
  }
};

template <class T>
void moments_along(index rows, index cols, const T* x, index ldx, double* mean, double* m2) noexcept {
  PartialRows<T, kShortRowBytes> sum;
  alignas(64) T centre[kShortRowBytes / sizeof(T)];
  sum.clear(cols);
  for (index r = 0; r < rows; ++r) {
    const T* const row = x + r * ldx;
    T* const partial = sum.of_row(r);
    for_row<T>(cols, [=](index j, auto n) {
      store(partial + j, load(partial + j) + (load_n(row + j, n) - load_n(x + j, n)));
    });
  }
  const vec<T> inverse = set1<T>(T(1.0 / double(rows)));
  for_row<T>(cols, [&](index j, auto n) { store(centre + j, fma(sum.total(j), inverse, load_n(x + j, n))); });
  // The block is in L2 now.
  for_column_groups<T, kSumVectors>(cols, [&](auto group) {
    constexpr int G = decltype(group)::vectors;
    vec<T> around[G];
    for (int v = 0; v < G; ++v) around[v] = load(centre + group.first + v * lanes<T>());
    const auto read = [&](index r, int v) { return group.read(x + r * ldx, v); };
    moments_around<T>(group, rows, around, read, [] {}, mean, m2);
  });
  widen_where_overflown(rows, cols, x, ldx, mean, m2);
}

template <class T>
void bn_backward_sums_along(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                            const T* m, double* sum_dy, double* sum_dyx, double* sum_x) noexcept {
  PartialRows<T, kShortPairBytes> sum, products, distances;
  sum.clear(cols), products.clear(cols), distances.clear(cols);
  for (index r = 0; r < rows; ++r, dy += lddy, x += ldx) {
    T *const s = sum.of_row(r), *const p = products.of_row(r), *const q = distances.of_row(r);
    for_row<T>(cols, [=](index j, auto n) {
      const vec<T> g = load_n(dy + j, n), d = load_n(x + j, n) - load_n(m + j, n);
      store(s + j, load(s + j) + g);
      store(p + j, fma(g, d, load(p + j)));
      store(q + j, load(q + j) + d);
    });
  }
  for_column_groups<T, 1>(cols, [&](auto group) {
    write_wide<T>(group, 0, sum.total(group.first), sum_dy);
    write_wide<T>(group, 0, products.total(group.first), sum_dyx);
    write_wide<T>(group, 0, distances.total(group.first), sum_x);
  });
}

template <class T> constexpr void add_batchnorm_along(Kernels<T>& k) {
  k.moments_along = &moments_along<T>;
  k.bn_backward_sums_along = &bn_backward_sums_along<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
