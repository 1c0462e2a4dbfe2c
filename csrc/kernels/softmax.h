// softmax.h — softmax and its logarithm over each row, and their gradients. The largest element
// is taken off first, so nothing overflows; a row that holds NaN or +infinity, or -infinity alone,
// comes out as NaN, as in torch. Sums as in rowsum.h. Shapes and aliasing: table.h.
#pragma once
#include "math.h"
#include "rowsum.h"
#include "table.h"

namespace gv::kernels::GV_ISA {
namespace {

// The logarithm of one number, by the same operations as a vector of them.
inline double log_of(double x) { return log<double>(set1<double>(x))[0]; }

// y = e^(x - largest), and the sum of y. y may be x.
template <class T> inline double exp_row(index cols, const T* x, T largest, T* y) {
  return row_sum<T>(cols, [=](index j, auto n) {
    const vec<T> e = exp<T>(load_n(x + j, n) - largest);
    store_n(y + j, e, n);
    return e;
  });
}

template <class T>
void softmax(index rows, index cols, const T* x, index ldx, T* y, index ldy) noexcept {
  for (index r = 0; r < rows; ++r, x += ldx, y += ldy) {
    const double total = exp_row<T>(cols, x, row_max<T>(cols, x), y);
    const T inverse = T(1 / total);
    for_row<T>(cols, [=](index j, auto n) { store_n(y + j, load_n(y + j, n) * inverse, n); });
  }
}

template <class T>
void log_softmax(index rows, index cols, const T* x, index ldx, T* y, index ldy) noexcept {
  for (index r = 0; r < rows; ++r, x += ldx, y += ldy) {
    const T largest = row_max<T>(cols, x);
    const double total =
        row_sum<T>(cols, [=](index j, auto n) { return exp<T>(load_n(x + j, n) - largest); });
    const T log_total = T(log_of(total));
    for_row<T>(cols, [=](index j, auto n) { store_n(y + j, (load_n(x + j, n) - largest) - log_total, n); });
  }
}

// dx = y * (dy - Σ dy*y)
template <class T>
void softmax_backward(index rows, index cols, const T* dy, index lddy, const T* y, index ldy, T* dx,
                      index lddx) noexcept {
  for (index r = 0; r < rows; ++r, dy += lddy, y += ldy, dx += lddx) {
    const T dot = T(row_sum<T>(cols, [=](index j, auto n) { return load_n(dy + j, n) * load_n(y + j, n); }));
    for_row<T>(cols,
               [=](index j, auto n) { store_n(dx + j, load_n(y + j, n) * (load_n(dy + j, n) - dot), n); });
  }
}

// dx = dy - e^y * Σ dy
template <class T>
void log_softmax_backward(index rows, index cols, const T* dy, index lddy, const T* y, index ldy, T* dx,
                          index lddx) noexcept {
  for (index r = 0; r < rows; ++r, dy += lddy, y += ldy, dx += lddx) {
    const T total = T(row_sum<T>(cols, [=](index j, auto n) { return load_n(dy + j, n); }));
    for_row<T>(cols, [=](index j, auto n) {
      store_n(dx + j, fma(exp<T>(load_n(y + j, n)), set1<T>(-total), load_n(dy + j, n)), n);
    });
  }
}

template <class T> constexpr void add_softmax(Kernels<T>& k) {
  k.softmax = &softmax<T>;
  k.log_softmax = &log_softmax<T>;
  k.softmax_backward = &softmax_backward<T>;
  k.log_softmax_backward = &log_softmax_backward<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
