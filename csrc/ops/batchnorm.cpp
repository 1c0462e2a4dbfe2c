// batchnorm.cpp — the order of the row blocks and the dealing of columns; the arithmetic is in
// kernels/batchnorm.h. See batchnorm.h.
#include "batchnorm.h"

namespace gv::ops {
namespace {

template <class P> P* at(P* p, index column) { return p ? p + column : nullptr; }
index smaller(index a, index b) { return a < b ? a : b; }

// The moments are doubles, too short for what a mean in double cannot hold. With T = double this
// takes m2 once more, the blocks merged by their distances from the mean instead of by their
// means, and leaves the mean of those distances in scratch + 3n. m, shift and c serve as scratch.
template <class T>
void refine(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, Range cols,
            double* scratch) noexcept {
  const index n = cols.size(), j = cols.first, rows = args.rows;
  double *offset = scratch, *m2 = scratch + n, *unused = scratch + 2 * n, *rest = scratch + 3 * n;
  double* counts = reinterpret_cast<double*>(args.c + j);
  T *m = args.m + j, *ones = args.shift + j;
  for (index i = 0; i < n; ++i) m[i] = T(args.mean[j + i]), ones[i] = T(1);
  for (index r = 0; r < rows; r += kRowBlock) {
    const index some = smaller(rows - r, kRowBlock);
    const T* x = args.x + r * args.ldx + j;
    k.bn_backward_sums(some, n, ones, 0, x, args.ldx, m, nullptr, nullptr, false, counts,
                       r == 0 ? rest : offset);
    for (index i = 0; i < n; ++i) (r == 0 ? rest : offset)[i] /= double(some);
    if (rows > kRowBlock) k.moments(some, n, x, args.ldx, nullptr, unused, r == 0 ? args.m2 + j : m2);
    if (r > 0) k.moments_merge(n, r, rest, args.m2 + j, some, offset, m2);
  }
}

}  // namespace

template <class T>
void batchnorm_moments_panel(const kernels::Kernels<T>& k, index rows, const T* x, index ldx, double* mean,
                             double* m2, Range cols, double* scratch) noexcept {
  const index n = cols.size();
  const T* panel = x + cols.first;
  double *mean_panel = mean + cols.first, *m2_panel = m2 + cols.first;
  k.moments(smaller(rows, kRowBlock), n, panel, ldx, nullptr, mean_panel, m2_panel);
  for (index r = kRowBlock; r < rows; r += kRowBlock) {
    const index some = smaller(rows - r, kRowBlock);
    k.moments(some, n, panel + r * ldx, ldx, nullptr, scratch, scratch + n);
    k.moments_merge(n, r, mean_panel, m2_panel, some, scratch, scratch + n);
  }
}

template <class T>
void batchnorm_forward_panel(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, Range cols,
                             double* scratch) noexcept {
  const index n = cols.size(), j = cols.first;
  if (n <= 0) return;
  batchnorm_moments_panel(k, args.rows, args.x, args.ldx, args.mean, args.m2, cols, scratch);
  if constexpr (sizeof(T) == sizeof(double)) refine(k, args, cols, scratch);
  k.bn_coefficients(n, args.rows, args.mean + j, args.m2 + j, args.eps, at(args.gamma, j), at(args.beta, j),
                    args.m + j, args.shift + j, args.rstd + j, args.a + j, args.c + j);
  if constexpr (sizeof(T) == sizeof(double)) {
    const double* rest = scratch + 3 * n;
    for (index i = 0; i < n; ++i) {
      args.shift[j + i] = T(rest[i]);
      args.c[j + i] = (args.beta ? args.beta[j + i] : T(0)) - T(rest[i]) * args.a[j + i];
    }
  }
  k.bn_apply(args.rows, n, args.x + j, args.ldx, args.m + j, args.a + j, args.c + j, args.relu,
             at(args.residual, j), args.ldr, args.y + j, args.ldy);
}

template <class T>
void batchnorm_backward_sums_panel(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, Range cols,
                                   double* scratch) noexcept {
  const index n = cols.size(), j = cols.first;
  if (n <= 0) return;
  double *sum_dy = scratch, *sum_dyx = scratch + n, *sum_x = scratch + 2 * n, *block = scratch + 3 * n;
  for (index r = 0; r < args.rows; r += kRowBlock) {
    const index some = smaller(args.rows - r, kRowBlock);
    const T *dy = args.dy + r * args.lddy + j, *x = args.x + r * args.ldx + j;
    double* into = r == 0 ? sum_dy : block;
    if (args.found_shift)
      k.bn_backward_sums_and_shift(some, n, dy, args.lddy, x, args.ldx, args.m + j, nullptr, nullptr, into,
                                   into + n, into + 2 * n);
    else
      k.bn_backward_sums(some, n, dy, args.lddy, x, args.ldx, args.m + j, at(args.a, j), at(args.c, j),
                         args.relu, into, into + n);
    if (r == 0) continue;
    for (index i = 0; i < n; ++i) sum_dy[i] += block[i];
    for (index i = 0; i < n; ++i) sum_dyx[i] += block[n + i];
    for (index i = 0; args.found_shift && i < n; ++i) sum_x[i] += block[2 * n + i];
  }
  for (index i = 0; args.found_shift && i < n; ++i) args.found_shift[j + i] = T(sum_x[i] / double(args.rows));
  k.bn_backward_coefficients(n, args.rows, sum_dy, sum_dyx, args.shift + j, args.rstd + j, at(args.gamma, j),
                             args.dgamma + j, args.dbeta + j, args.c1 + j, args.c2 + j, args.c3 + j);
}

template <class T>
void batchnorm_backward_apply_panel(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args,
                                    Range cols) noexcept {
  const index n = cols.size(), j = cols.first;
  if (n <= 0) return;
  k.bn_backward_apply(args.rows, n, args.dy + j, args.lddy, args.x + j, args.ldx, args.m + j, at(args.a, j),
                      at(args.c, j), args.relu, args.c1 + j, args.c2 + j, args.c3 + j, args.dx + j,
                      args.lddx);
}

template <class T>
void batchnorm_backward_panel(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, Range cols,
                              double* scratch) noexcept {
  batchnorm_backward_sums_panel(k, args, cols, scratch);
  batchnorm_backward_apply_panel(k, args, cols);
}

// The columns that a worker takes at a time, so that a panel that was read stays in L2 until it is
// read again; one worker's L2 is a megabyte or more on every processor of the last years.
template <class T, class Panel> void for_panels(index rows, Range cols, int matrices, Panel&& panel) {
  constexpr index kPanelBytes = index(3) << 18;
  const index most = kPanelBytes / (rows * matrices * index(sizeof(T))) / kColumnGrain<T> * kColumnGrain<T>;
  const index width = most > 4 * kColumnGrain<T> ? most : 4 * kColumnGrain<T>;
  for (index j = cols.first; j < cols.last; j += width) panel(Range{j, smaller(j + width, cols.last)});
}

// A worker's part of the shared scratch starts where its columns start: the need is linear in cols.
template <class T>
void run(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, double* scratch, int worker,
         int workers) noexcept {
  for_panels<T>(args.rows, share(args.cols, kColumnGrain<T>, worker, workers), 1, [&](Range cols) {
    batchnorm_forward_panel(k, args, cols, scratch + batchnorm_forward_scratch(cols.first));
  });
}

template <class T>
void run(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, double* scratch, int worker,
         int workers) noexcept {
  for_panels<T>(args.rows, share(args.cols, kColumnGrain<T>, worker, workers), 2, [&](Range cols) {
    batchnorm_backward_panel(k, args, cols, scratch + batchnorm_backward_scratch(cols.first));
  });
}

#define GV_INSTANTIATE(T)                                                                                \
  template void batchnorm_moments_panel(const kernels::Kernels<T>&, index, const T*, index, double*,     \
                                        double*, Range, double*) noexcept;                               \
  template void batchnorm_forward_panel(const kernels::Kernels<T>&, const BatchNormForward<T>&, Range,   \
                                        double*) noexcept;                                               \
  template void batchnorm_backward_sums_panel(const kernels::Kernels<T>&, const BatchNormBackward<T>&,   \
                                              Range, double*) noexcept;                                  \
  template void batchnorm_backward_apply_panel(const kernels::Kernels<T>&, const BatchNormBackward<T>&,  \
                                               Range) noexcept;                                          \
  template void batchnorm_backward_panel(const kernels::Kernels<T>&, const BatchNormBackward<T>&, Range, \
                                         double*) noexcept;                                              \
  template void run(const kernels::Kernels<T>&, const BatchNormForward<T>&, double*, int, int) noexcept; \
  template void run(const kernels::Kernels<T>&, const BatchNormBackward<T>&, double*, int, int) noexcept;
GV_INSTANTIATE(float)
GV_INSTANTIATE(double)
#undef GV_INSTANTIATE

}  // namespace gv::ops
