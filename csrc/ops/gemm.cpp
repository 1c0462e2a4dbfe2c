// gemm.cpp — which way a product goes: in blocks (gemm_blocked.h), as dot products, along the rows of B, or as the
// transposed product; and how C is dealt to workers.
#include "gemm_blocked.h"

namespace gv::ops {
namespace {

// Longest short side of a C found transposed, and so much of its long side at a time.
template <class T> constexpr index kNarrow = 4 * kLine<T>;
constexpr index kSwapped = 512;
constexpr index kDotRows = 4;  // so few rows times a transposed B are found as dot products

// Few rows times a transposed B: nothing is packed but an A that does not lie row by row.
template <class T>
void by_dots(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  if (g.kas == 1 || g.k == 0) {
    kernels.dots(g.m, g.n, g.k, g.a, g.ras, g.b, g.ldb, g.c, g.ldc, g.accumulate);
    return;
  }
  for (index p = 0; p < g.k; p += kDepth<T>) {
    const index k = smaller(g.k - p, kDepth<T>);
    kernels.transpose(k, g.m, g.a + p * g.kas, g.kas, scratch, kDepth<T>);
    kernels.dots(g.m, g.n, k, scratch, kDepth<T>, g.b + p, g.ldb, g.c, g.ldc, g.accumulate || p > 0);
  }
}

// Whether few rows are found by walking along those of B: a tile, which walks down its columns, is better as long
// as these lie near, and the longer the more rows it has. The bounds are measured ones.
template <class T> bool streams(const Gemm<T>& g) {
  constexpr index kLeast[] = {0, 16 << 10, 256 << 10, 1 << 20};  // bytes of B, by rows of A
  return !g.b_transposed && g.m <= 3 && !linked(g) && g.n >= 4 * kLine<T> &&
         g.n * g.k * index(sizeof(T)) >= kLeast[g.m];
}

template <class T> Gemm<T> part(const Gemm<T>& g, Range rows, Range cols) {
  Gemm<T> p = g;
  p.m = rows.size();
  p.n = cols.size();
  p.a += rows.first * g.ras;
  p.b += cols.first * (g.b_transposed ? g.ldb : 1);
  p.c += rows.first * g.ldc + cols.first;
  return p;
}

// What a product costs, about, in FMAs of a cache line: a vector is never done in part, but where there are shorter ones
// just half of it takes three quarters of the time, and every element of a transposed B is moved.
template <class T>
index cost(const kernels::Kernels<T>& kernels, index m, index n, index k, bool b_transposed) {
  const bool half = kernels.halves && n % kLine<T> == kLine<T> / 2 && n > kDotRows;
  const index moved = b_transposed ? n * k * (m <= kDotRows ? 3 : 4) / 8 : 0;
  return (4 * blocks(n, kLine<T>) - half) * m * k / 4 + moved;
}

// The same as Cᵀ = Bᵀ * Aᵀ, with the same chains: columns of A become those of vectors.
template <class T> Gemm<T> swap(const Gemm<T>& g, T* ct, index ldct) {
  Gemm<T> s = g;
  s.m = g.n, s.n = g.m;
  s.a = g.b, s.ras = g.b_transposed ? g.ldb : 1, s.kas = g.b_transposed ? 1 : g.ldb;
  s.b = g.a, s.b_transposed = g.kas == 1, s.ldb = s.b_transposed ? g.ras : g.kas;
  s.c = ct, s.ldc = ldct;
  s.fresh = false;
  return s;
}

template <class T>
void direct(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  if (g.b_transposed && g.m <= kDotRows && !linked(g)) by_dots(kernels, g, scratch);
  else if (streams(g)) kernels.axpys(g.m, g.n, g.k, g.a, g.ras, g.kas, g.b, g.ldb, g.c, g.ldc, g.accumulate);
  else blocked(kernels, g, scratch);
}

// As it stands or transposed, whichever costs less.
template <class T>
void either_way(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  T* const ct = scratch;
  if (g.accumulate || smaller(g.m, g.n) > kNarrow<T> ||
      cost(kernels, g.n, g.m, g.k, g.kas == 1) + g.m * g.n >= cost(kernels, g.m, g.n, g.k, g.b_transposed)) {
    direct(kernels, g, scratch);
    return;
  }
  scratch += kSwapped * kNarrow<T>;
  const bool tall = g.m > g.n;
  for (index at = 0; at < (tall ? g.m : g.n); at += kSwapped) {
    const Range piece{at, smaller(at + kSwapped, tall ? g.m : g.n)};
    const Gemm<T> p = tall ? part(g, piece, {0, g.n}) : part(g, {0, g.m}, piece);
    direct(kernels, swap(p, ct, p.m), scratch);
    kernels.transpose(p.n, p.m, ct, p.m, p.c, p.ldc);
  }
}

}  // namespace

// What a block packs and which way it goes depends on its size and on where it lies, and its panels on the
// instruction set: the most of each is counted, for a part of the product may need what the whole does not.
template <class T> index gemm_scratch(const Gemm<T>& g) {
  const auto either = [&g](index m, index n) {
    const auto kept = [&](index k, index columns) {
      return smaller(g.k, k) * whole(smaller(n, columns), kPanel<T>);
    };
    index b = smaller(g.k, kLong) * kPanel<T>;
    if (m > kRows<T>)
      b = larger(kept(kLong, most_columns<T>(m, false)), kept(longest(g), most_columns<T>(m, true)));
    const index all_of_b = smaller(g.k, kShallow) * spread<T>(smaller(n, most_columns<T>(m, false)));
    return larger(all_of_b, carried_size<T>(m, n) + packed_a_size<T>(m, g.k) + b);
  };
  const index transposed = larger(either(smaller(g.n, kNarrow<T>), smaller(g.m, kSwapped)),
                                  either(smaller(g.n, kSwapped), smaller(g.m, kNarrow<T>)));
  return larger(kDotRows * kDepth<T> + kSwapped * kNarrow<T>,
                larger(either(g.m, g.n), transposed + kSwapped * kNarrow<T>));
}

template <class T>
void gemm_block(const kernels::Kernels<T>& kernels, const Gemm<T>& g, Range rows, Range cols,
                T* scratch) noexcept {
  if (rows.size() <= 0 || cols.size() <= 0 || (g.accumulate && g.k == 0)) return;
  // Small products are many: what is whole is not described a second time.
  const bool all = rows.first == 0 && rows.last == g.m && cols.first == 0 && cols.last == g.n;
  if (all) either_way(kernels, g, scratch);
  else either_way(kernels, part(g, rows, cols), scratch);
}

template <class T>
void run(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch, int worker, int workers) noexcept {
  // The grid whose largest share costs least: the product itself, and the packing of its A and B,
  // where moving an element costs about as much as a few FMAs.
  constexpr index kGrain = 4, kMove = 4;
  int down = 1, across = 1;
  index least = -1;
  for (int d = 1; d <= workers; ++d) {
    const int r = workers / d;
    const index m = share(g.m, kGrain, 0, d).size(), n = share(g.n, kPanel<T>, 0, r).size();
    const index cost = m * n + kMove * (m + n);
    if (least < 0 || cost < least) least = cost, down = d, across = r;
  }
  if (worker >= down * across) return;
  gemm_block(kernels, g, share(g.m, kGrain, worker / across, down),
             share(g.n, kPanel<T>, worker % across, across), scratch);
}

template index gemm_scratch(const Gemm<float>&);
template index gemm_scratch(const Gemm<double>&);
template void gemm_block(const kernels::Kernels<float>&, const Gemm<float>&, Range, Range, float*) noexcept;
template void gemm_block(const kernels::Kernels<double>&, const Gemm<double>&, Range, Range,
                         double*) noexcept;
template void run(const kernels::Kernels<float>&, const Gemm<float>&, float*, int, int) noexcept;
template void run(const kernels::Kernels<double>&, const Gemm<double>&, double*, int, int) noexcept;

}  // namespace gv::ops
