// batchnorm_flat.h — the application of batch normalisation and of its gradient to a matrix without
// gaps as one long row: whole vectors that run over the ends of the rows, so that narrow matrices fill
// them. The formulas are those of batchnorm.h.
// Signatures and contracts: table.h.
#pragma once
#include "rowsum.h"
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// How many columns further the next call is, modulo cols.
inline index advance(Whole, index step, index) { return step; }
inline index advance(index n, index, index cols) { return n % cols; }

// y[i] = value(i, j, k) for 0 <= i < n in ascending order, j the column of element i, k as in for_row.
template <class T, bool Past, class Value>
inline void for_flat_as(index n, index first, index cols, T* y, Value&& value) {
  constexpr index L = lanes<T>();
  const index step = L % cols;  // L itself where cols > L
  index j = first;
  for_row_aligned<T, Past>(n, y, [&](index i, auto k) {
    const vec<T> out = value(i, j, k);
    j += advance(k, step, cols);
    if (j >= cols) j -= cols;
    return out;
  });
}

template <class T, class Value>
inline void for_flat(index n, index first, index cols, bool past, T* y, Value&& value) {
  if (past) for_flat_as<T, true>(n, first, cols, y, value);
  else for_flat_as<T, false>(n, first, cols, y, value);
}

template <class T>
void bn_apply_flat(index n, index first, index cols, const T* x, const T* m, const T* a, const T* c,
                   bool past, T* y) noexcept {
  for_flat<T>(n, first, cols, past, y, [=](index i, index j, auto k) {
    return fma(load_n(x + i, k) - load(m + j), load(a + j), load(c + j));
  });
}

template <class T>
void bn_backward_apply_flat(index n, index first, index cols, const T* dy, const T* x, const T* m,
                            const T* c1, const T* c2, const T* c3, bool past, T* dx) noexcept {
  for_flat<T>(n, first, cols, past, dx, [=](index i, index j, auto k) {
    const vec<T> d = load_n(x + i, k) - load(m + j);
    return load(c1 + j) * (load_n(dy + i, k) + fma(load(c2 + j), d, load(c3 + j)));
  });
}

template <class T> constexpr void add_batchnorm_flat(Kernels<T>& k) {
  k.bn_apply_flat = &bn_apply_flat<T>;
  k.bn_backward_apply_flat = &bn_backward_apply_flat<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
