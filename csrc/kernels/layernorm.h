// layernorm.h — layer normalisation over each row and its gradient (Ba, Kiros & Hinton 2016, arXiv
// 1607.06450). The variance takes two passes, the mean first, then squared distances from it;
// sums along a row as in rowsum.h, down the columns as in base/types.h. Contracts: table.h.
#pragma once
#include "elementwise.h"

namespace gv::kernels::GV_ISA {
namespace {

// The mean of a row as T(mean) plus what T could not hold, and the reciprocal deviation. Sums run
// over distances from the first element: a row far from 0 must not lose its spread.
template <class T> struct RowMoments {
  T mean, shift, rstd;
};
template <class T> inline RowMoments<T> row_moments_of(double mean, double variance, double eps) {
  const T m = T(mean);
  return {m, T(mean - double(m)), T(1 / sqrt(set1<double>(variance + eps))[0])};
}
// In double, in which the square of no float overflows.
template <class T>
__attribute__((noinline, cold)) RowMoments<T> wide_row_moments(index cols, const T* x, double eps) {
  double mean = 0, m2 = 0;
  for (index j = 0; j < cols; ++j) mean += double(x[j]) / double(cols);
  for (index j = 0; j < cols; ++j) m2 += (double(x[j]) - mean) * (double(x[j]) - mean);
  return row_moments_of<T>(mean, m2 / double(cols), eps);
}
template <class T> inline RowMoments<T> row_moments(index cols, const T* x, double eps) {
  const T first = x[0];
  const double offset =
      row_sum<T>(cols, [=](index j, auto n) { return load_n(x + j, n) - first; }) / double(cols);
  const double mean = double(first) + offset;
  const T m = T(mean), shift = T(mean - double(m));
  const double m2 = row_sum<T>(cols, [=](index j, auto n) {
    const vec<T> d = (load_n(x + j, n) - m) - shift;
    return d * d;
  });
  return m2 - m2 == 0 ? row_moments_of<T>(mean, m2 / double(cols), eps) : wide_row_moments<T>(cols, x, eps);
}

template <class T>
void layernorm(index rows, index cols, const T* x, index ldx, const T* gamma, const T* beta, double eps, T* y,
               index ldy, T* mean, T* rstd) noexcept {
  if (cols == 0) {  // no element has a mean: NaN, as 0/0
    for (index r = 0; r < rows; ++r) mean[r] = rstd[r] = T(__builtin_nan(""));
    return;
  }
  for (index r = 0; r < rows; ++r, x += ldx, y += ldy) {
    const RowMoments<T> s = row_moments<T>(cols, x, eps);
    mean[r] = s.mean;
    rstd[r] = s.rstd;
    for_row<T>(cols, [=](index j, auto n) {
      vec<T> v = ((load_n(x + j, n) - s.mean) - s.shift) * s.rstd;
      if (gamma) v = v * load_n(gamma + j, n);
      if (beta) v = v + load_n(beta + j, n);
      store_n(y + j, v, n);
    });
  }
}

// dx = rstd * (g - mean(g) - x̂ * mean(g * x̂)), g = dy * gamma, x̂ = (x - mean) * rstd.
template <class T>
void layernorm_backward(index rows, index cols, const T* dy, index lddy, const T* x, index ldx, const T* mean,
                        const T* rstd, const T* gamma, T* dx, index lddx) noexcept {
  for (index r = 0; r < rows; ++r, dy += lddy, x += ldx, dx += lddx) {
    const T m = mean[r], s = rstd[r];
    const auto g = [=](index j, auto n) {
      const vec<T> d = load_n(dy + j, n);
      return gamma ? d * load_n(gamma + j, n) : d;
    };
    const auto normalised = [=](index j, auto n) { return (load_n(x + j, n) - m) * s; };
    const T mean_g = T(row_sum<T>(cols, g) / double(cols));
    const T mean_gx =
        T(row_sum<T>(cols, [=](index j, auto n) { return g(j, n) * normalised(j, n); }) / double(cols));
    for_row<T>(cols, [=](index j, auto n) {
      store_n(dx + j, (fma(normalised(j, n), set1<T>(-mean_gx), g(j, n)) - mean_g) * s, n);
    });
  }
}

template <class T>
void layernorm_param_sums(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                          const T* mean, const T* rstd, double* dgamma, double* dbeta) noexcept {
  column_totals<T>(rows, cols, dgamma, [=](index r, index j, auto n) {
    return load_n(dy + r * lddy + j, n) * ((load_n(x + r * ldx + j, n) - mean[r]) * rstd[r]);
  });
  column_sums<T>(rows, cols, dy, lddy, dbeta);
}

template <class T> constexpr void add_layernorm(Kernels<T>& k) {
  k.layernorm = &layernorm<T>;
  k.layernorm_backward = &layernorm_backward<T>;
  k.layernorm_param_sums = &layernorm_param_sums<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
