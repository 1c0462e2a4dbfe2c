// batchnorm.h — batch normalisation of a matrix, a panel of columns at a time: moments of the row
// blocks merged in ascending order, coefficients, application, and the gradient. Not here: running
// statistics (one call of kernels.bn_update_running) and which worker takes which columns.
// Every panel function takes all rows of the columns first <= j < last; all pointers belong to
// column 0, and those marked "may be null" may be. Ioffe & Szegedy 2015, arXiv 1502.03167.
#pragma once
#include "../base/parallel.h"
#include "../kernels/table.h"

namespace gv::ops {

// Columns are dealt in whole cache lines, so that no two workers write the same one.
template <class T> constexpr index kColumnGrain = 64 / index(sizeof(T));

template <class T> struct BatchNormForward {
  index rows, cols;
  const T* x;
  index ldx;
  const T *gamma, *beta;  // may be null: 1 and 0
  double eps;
  bool relu;
  const T* residual;  // may be null
  index ldr;
  T* y;  // may be x or residual
  index ldy;
  double *mean, *m2;           // out: moments of the column, m2 = Σ(x - mean)²
  T *m, *shift, *rstd, *a, *c;  // out: see bn_coefficients in kernels/table.h
};

template <class T> struct BatchNormBackward {
  index rows, cols;
  const T* dy;
  index lddy;
  const T* x;
  index ldx;
  const T *m, *shift, *rstd;
  const T *a, *c;  // read only with relu
  const T* gamma;  // may be null
  bool relu;
  T* dx;  // may be dy
  index lddx;
  T *dgamma, *dbeta;  // out, overwritten
  T *c1, *c2, *c3;    // out: the coefficients of dx
  T* found_shift;     // null, or where shift points: out, found from x as only m was kept; without relu
};

// Doubles of scratch that a panel of so many columns needs.
constexpr index batchnorm_forward_scratch(index cols) { return 4 * cols; }
constexpr index batchnorm_backward_scratch(index cols) { return 6 * cols; }

// mean and m2 of the columns; rows >= 1.
template <class T>
void batchnorm_moments_panel(const kernels::Kernels<T>& k, index rows, const T* x, index ldx, double* mean,
                             double* m2, Range cols, double* scratch) noexcept;

// Moments, coefficients and y.
template <class T>
void batchnorm_forward_panel(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, Range cols,
                             double* scratch) noexcept;

// The two halves of the gradient, for a caller with something to do in between: dgamma, dbeta and
// c1, c2, c3; then dx.
template <class T>
void batchnorm_backward_sums_panel(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, Range cols,
                                   double* scratch) noexcept;
template <class T>
void batchnorm_backward_apply_panel(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args,
                                    Range cols) noexcept;
template <class T>
void batchnorm_backward_panel(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, Range cols,
                              double* scratch) noexcept;

// A worker's share of the whole. scratch belongs to all: batchnorm_*_scratch(cols) doubles.
template <class T>
void run(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, double* scratch, int worker,
         int workers) noexcept;
template <class T>
void run(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, double* scratch, int worker,
         int workers) noexcept;

}  // namespace gv::ops
