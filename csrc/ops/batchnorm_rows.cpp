// batchnorm_rows.cpp — see batchnorm_rows.h.
#include "batchnorm_rows.h"

#include "../base/caches.h"
#include "past.h"

namespace gv::ops {
namespace {

index smaller(index a, index b) { return a < b ? a : b; }
template <class P> P* at(P* p, index column) { return p ? p + column : nullptr; }

// tile(r, j, next_r, next_j): the tiles of the rows, along the rows first. A tile is as wide as memory
// likes to be read and low enough for two of them to share L2.
template <class T, class Tile> void for_tiles(Range rows, index cols, index width, Tile&& tile) {
  for (index r = rows.first; r < rows.last; r += kRowBlock) {
    for (index j = 0; j < cols; j += width) {
      const bool last = j + width >= cols;
      tile(r, j, last ? r + kRowBlock : r, last ? 0 : j + width);
    }
  }
}
template <class T> constexpr index kTileWidth = 1024 / index(sizeof(T));
// Elements that are applied at once: where rows have gaps, about as many as L1 holds, for they are walked by columns.
constexpr index kFlat = 1 << 18, kStrided = 1 << 12;

// Whether so many matrices are more than the caches of a processor are sure to hold.
template <class Args> bool from_memory(const Args& args, index matrices) {
  return matrices * args.rows * args.cols * index(sizeof(*args.x)) > 4 * caches().second;
}

// The share of the application. That of the sums, where it follows them; few rows are dealt one by one.
Range rows_of(index rows, int worker, int workers) {
  return share(rows, batchnorm_blocks(rows) < workers ? 1 : kRowBlock, worker, workers);
}

// The vectors that the flat kernels read over their end, one after another.
template <class T> class Repeated {
 public:
  Repeated(T* shared, int worker, index cols)
      : memory_(shared ? shared + batchnorm_repeated(cols) * worker : nullptr), cols_(cols) {}
  const T* take(const T* v) {
    T* to = memory_;
    memory_ += cols_ + kernels::kOverlap;
    for (index j = 0; j < cols_; ++j) to[j] = v[j];
    for (index j = 0; j < kernels::kOverlap; ++j) to[cols_ + j] = to[j];
    return to;
  }

 private:
  T* memory_;
  const index cols_;
};

// Rows of a share from the last to the first, for what was read last may still be in a cache; about so many elements
// at once.
template <class Part> void backwards(Range rows, index cols, index elements, Part&& part) {
  const index at_once = elements / smaller(cols, elements);
  for (index last = rows.last; last > rows.first; last -= at_once)
    part(last - at_once > rows.first ? Range{last - at_once, last} : Range{rows.first, last});
}

}  // namespace

template <class T> bool batchnorm_by_rows(index rows, index cols, int workers) {
  constexpr index kSmallBytes = index(1) << 16;  // in L1 and L2 the order of the walk is of no use
  if (workers == 1) return rows * cols * index(sizeof(T)) > kSmallBytes;
  return batchnorm_blocks(rows) >= workers || batchnorm_blocks(rows) > cols / kColumnGrain<T>;
}

template <class T>
void batchnorm_rows_moments(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, double* blocks,
                            int worker, int workers) noexcept {
  const Range rows = share(args.rows, kRowBlock, worker, workers);
  if (from_memory(args, 1) && args.cols * index(sizeof(T)) <= kernels::kShortRowBytes) {
    for (index r = rows.first; r < rows.last; r += kRowBlock) {
      double* block = blocks + r / kRowBlock * 2 * args.cols;
      k.moments_along(smaller(args.rows - r, kRowBlock), args.cols, args.x + r * args.ldx, args.ldx, block,
                      block + args.cols);
    }
    return;
  }
  for_tiles<T>(rows, args.cols, kTileWidth<T>, [&](index r, index j, index next_r, index next_j) {
    double* block = blocks + r / kRowBlock * 2 * args.cols;
    k.moments(smaller(args.rows - r, kRowBlock), smaller(args.cols - j, kTileWidth<T>),
              args.x + r * args.ldx + j, args.ldx,
              next_r < rows.last ? args.x + next_r * args.ldx + next_j : nullptr, block + j,
              block + args.cols + j);
  });
}

template <class T>
void batchnorm_rows_merge(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, const double* blocks,
                          int worker, int workers) noexcept {
  const Range cols = share(args.cols, kColumnGrain<T>, worker, workers);
  const index n = cols.size(), j = cols.first;
  if (n <= 0) return;
  for (index r = 0; r < args.rows; r += kRowBlock, blocks += 2 * args.cols) {
    const double *mean = blocks + j, *m2 = blocks + args.cols + j;
    if (r > 0) {
      k.moments_merge(n, r, args.mean + j, args.m2 + j, smaller(args.rows - r, kRowBlock), mean, m2);
      continue;
    }
    for (index i = 0; i < n; ++i) args.mean[j + i] = mean[i], args.m2[j + i] = m2[i];
  }
  k.bn_coefficients(n, args.rows, args.mean + j, args.m2 + j, args.eps, at(args.gamma, j), at(args.beta, j),
                    args.m + j, args.shift + j, args.rstd + j, args.a + j, args.c + j);
}

template <class T>
void batchnorm_rows_apply(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, T* repeated,
                          int worker, int workers) noexcept {
  const index cols = args.cols;
  const bool past = args.y != args.x && worth_past(args.rows * cols * index(sizeof(T)));
  const Range mine = rows_of(args.rows, worker, workers);
  if (mine.size() <= 0 || cols == 0) return;
  const bool flat = args.ldx == cols && args.ldy == cols && repeated;
  Repeated<T> own(repeated, worker, cols);
  const T *m = args.m, *a = args.a, *c = args.c;
  if (flat) m = own.take(m), a = own.take(a), c = own.take(c);
  backwards(mine, cols, flat ? kFlat : kStrided, [&](Range rows) {
    const T* x = args.x + rows.first * args.ldx;
    T* y = args.y + rows.first * args.ldy;
    if (flat) k.bn_apply_flat(rows.size() * cols, 0, cols, x, m, a, c, past, y);
    else k.bn_apply(rows.size(), cols, x, args.ldx, m, a, c, false, nullptr, 0, y, args.ldy);
  });
}

template <class T>
void batchnorm_rows_moments(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, double* blocks,
                            int worker, int workers) noexcept {
  const Range rows = share(args.rows, kRowBlock, worker, workers);
  if (from_memory(args, 2) && args.cols * index(sizeof(T)) <= kernels::kShortPairBytes) {
    for (index r = rows.first; r < rows.last; r += kRowBlock) {
      double* block = blocks + r / kRowBlock * 3 * args.cols;
      k.bn_backward_sums_along(smaller(args.rows - r, kRowBlock), args.cols, args.dy + r * args.lddy,
                               args.lddy, args.x + r * args.ldx, args.ldx, args.m, block, block + args.cols,
                               block + 2 * args.cols);
    }
    return;
  }
  for_tiles<T>(rows, args.cols, kTileWidth<T>, [&](index r, index j, index next_r, index next_j) {
    double* block = blocks + r / kRowBlock * 3 * args.cols + j;
    const bool more = next_r < rows.last;
    k.bn_backward_sums_and_shift(smaller(args.rows - r, kRowBlock), smaller(args.cols - j, kTileWidth<T>),
                                 args.dy + r * args.lddy + j, args.lddy, args.x + r * args.ldx + j, args.ldx,
                                 args.m + j, more ? args.dy + next_r * args.lddy + next_j : nullptr,
                                 more ? args.x + next_r * args.ldx + next_j : nullptr, block,
                                 block + args.cols, block + 2 * args.cols);
  });
}

template <class T>
void batchnorm_rows_merge(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, double* blocks,
                          int worker, int workers) noexcept {
  const Range cols = share(args.cols, kColumnGrain<T>, worker, workers);
  const index n = cols.size(), j = cols.first;
  if (n <= 0) return;
  double *sum_dy = blocks + j, *sum_dyx = sum_dy + args.cols, *sum_x = sum_dyx + args.cols;
  const index sums = args.found_shift ? 3 : 2;
  for (index b = 1; b < batchnorm_blocks(args.rows); ++b) {
    const double* block = blocks + b * sums * args.cols + j;
    for (index i = 0; i < n; ++i) sum_dy[i] += block[i];
    for (index i = 0; i < n; ++i) sum_dyx[i] += block[args.cols + i];
    for (index i = 0; args.found_shift && i < n; ++i) sum_x[i] += block[2 * args.cols + i];
  }
  for (index i = 0; args.found_shift && i < n; ++i) args.found_shift[j + i] = T(sum_x[i] / double(args.rows));
  k.bn_backward_coefficients(n, args.rows, sum_dy, sum_dyx, args.shift + j, args.rstd + j, at(args.gamma, j),
                             args.dgamma + j, args.dbeta + j, args.c1 + j, args.c2 + j, args.c3 + j);
}

template <class T>
void batchnorm_rows_apply(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, T* repeated,
                          int worker, int workers) noexcept {
  const index cols = args.cols;
  const bool past = args.dx != args.dy && worth_past(args.rows * cols * index(sizeof(T)));
  const Range mine = rows_of(args.rows, worker, workers);
  if (mine.size() <= 0 || cols == 0) return;
  const bool flat = args.lddy == cols && args.ldx == cols && args.lddx == cols && repeated;
  Repeated<T> own(repeated, worker, cols);
  const T *m = args.m, *c1 = args.c1, *c2 = args.c2, *c3 = args.c3;
  if (flat) m = own.take(m), c1 = own.take(c1), c2 = own.take(c2), c3 = own.take(c3);
  backwards(mine, cols, flat ? kFlat : kStrided, [&](Range rows) {
    const T *dy = args.dy + rows.first * args.lddy, *x = args.x + rows.first * args.ldx;
    T* dx = args.dx + rows.first * args.lddx;
    if (flat) k.bn_backward_apply_flat(rows.size() * cols, 0, cols, dy, x, m, c1, c2, c3, past, dx);
    else
      k.bn_backward_apply(rows.size(), cols, dy, args.lddy, x, args.ldx, m, nullptr, nullptr, false, c1, c2,
                          c3, dx, args.lddx);
  });
}

#define GV_INSTANTIATE(T)                                                                                    \
  template bool batchnorm_by_rows<T>(index, index, int);                                                     \
  template void batchnorm_rows_moments(const kernels::Kernels<T>&, const BatchNormForward<T>&, double*, int, \
                                       int) noexcept;                                                        \
  template void batchnorm_rows_merge(const kernels::Kernels<T>&, const BatchNormForward<T>&, const double*,  \
                                     int, int) noexcept;                                                     \
  template void batchnorm_rows_apply(const kernels::Kernels<T>&, const BatchNormForward<T>&, T*, int,        \
                                     int) noexcept;                                                          \
  template void batchnorm_rows_moments(const kernels::Kernels<T>&, const BatchNormBackward<T>&, double*,     \
                                       int, int) noexcept;                                                   \
  template void batchnorm_rows_merge(const kernels::Kernels<T>&, const BatchNormBackward<T>&, double*, int,  \
                                     int) noexcept;                                                          \
  template void batchnorm_rows_apply(const kernels::Kernels<T>&, const BatchNormBackward<T>&, T*, int,       \
                                     int) noexcept;
GV_INSTANTIATE(float)
GV_INSTANTIATE(double)
#undef GV_INSTANTIATE

}  // namespace gv::ops
