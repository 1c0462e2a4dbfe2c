// gemm.cpp — blocking as in Goto & van de Geijn 2008: a panel of B (depth x 128 bytes) stays near
// while the rows of A pass, the packed blocks of A and B stay in L2. Between two blocks of k
// the chain of FMAs is carried in C, so that the blocking never shows in the bits.
#include "gemm.h"

#include <cstdint>

namespace gv::ops {
namespace {

template <class T> constexpr index kLine = 64 / index(sizeof(T));    // elements of a cache line
template <class T> constexpr index kPanel = 128 / index(sizeof(T));  // columns of a panel of B
// Longest block of k: deeper ones move C less often, while a panel of B streams from L2.
template <class T> constexpr index kDepth = 2048 / index(sizeof(T));
constexpr index kRows = 140;   // most rows of A in a block: ten of the tallest tiles, a part of L2
constexpr index kShallow = 32, kLow = 12;  // a product of so small k goes by so few rows
constexpr index kPanels = 64;  // most panels of B in a block, so that A is packed once
constexpr index kPartialRows = 128, kPartialPanels = 4;      // largest block of partial products
template <class T> constexpr index kNarrow = 4 * kLine<T>;   // longest short side of a C found transposed,
constexpr index kSwapped = 512;                              // and so much of its long side at a time
constexpr index kDotRows = 4;         // so few rows times a transposed B are found as dot products
constexpr index kFewRows = 48;        // so few rows do not win back a copy of B
constexpr index kStream = 128 << 10;  // bytes of a block of B that passes row by row

constexpr index smaller(index x, index y) { return x < y ? x : y; }
constexpr index blocks(index n, index largest) { return (n + largest - 1) / largest; }
// Size of the blocks when n is cut into as few as possible, all of nearly the same size.
constexpr index balanced(index n, index largest) { return n <= largest ? n : blocks(n, blocks(n, largest)); }
// Leading dimension of at least n elements: an odd number of lines, so that rows spread over all
// sets of the cache.
template <class T> constexpr index spread(index n) { return (blocks(n, kLine<T>) | 1) * kLine<T>; }

template <class T> index packed_a_size(index m, index k) {
  return smaller(m, kRows) * spread<T>(smaller(k, kDepth<T>));
}
template <class T> index packed_b_size(index n, index k) {
  return smaller(k, kDepth<T>) * spread<T>(smaller(blocks(n, kPanel<T>), kPanels) * kPanel<T>);
}

// A is packed row by row where that pays: where its rows share the sets of L1 (a multiple of 4 KiB apart),
// where it lies by columns, so that a tile takes a few elements of many lines, and where other workers wrote
// it, so that their lines are fetched once and in order. Few panels read A too few times to win back the copy.
template <class T> bool pack_a(const Gemm<T>& g) {
  if (g.m < kLine<T> || g.k < kLine<T>) return false;
  if (g.ras == 1 && g.kas > 1) return g.n >= 8 * kPanel<T> && g.k > kShallow;
  return (g.ras * index(sizeof(T)) % 4096 == 0 && g.n >= 16 * kPanel<T>) || (g.fresh && g.n >= 2 * kPanel<T>);
}

// B is packed where its vectors would lie on two lines each, unless they are few, and where its rows lie so
// far apart that they crowd few sets of the caches; it takes many rows of A to win back the copy. The bounds
// are measured ones.
template <class T> bool pack_b(const Gemm<T>& g) {
  if (g.b_transposed) return true;
  const bool whole_lines =
      (reinterpret_cast<std::uintptr_t>(g.b) | std::uintptr_t(g.ldb * index(sizeof(T)))) % 64 == 0;
  if (g.m <= kFewRows) return false;
  if (!whole_lines && g.m > 96 && g.k > (g.n % kPanel<T> == 0 ? 48 : 160)) return true;
  return g.ldb * g.k * index(sizeof(T)) > (g.m < 256 ? 512 : 256) * 1024;
}

// Longest block of k. A panel of B that is packed should still be in L1 when its first rows are used. A large B
// that is not packed goes by blocks of few rows, which memory gives in long stretches; a column panel of all its
// rows would be a walk from page to page.
template <class T> index deepest(const Gemm<T>& g, bool b_packed) {
  if (b_packed) return g.m <= kLine<T> ? kDepth<T> / 4 : kDepth<T> / 2;
  const index row = g.n * index(sizeof(T));
  if (row * g.k < 8 * kStream) return kDepth<T>;
  return smaller(kDepth<T>, kStream / row < kShallow ? kShallow : kStream / row);
}

// One panel of B, k x cols.
template <class T>
void pack_panel(const kernels::Kernels<T>& kernels, const Gemm<T>& g, index cols, index k, const T* b, T* dst,
                index ldd) {
  if (g.b_transposed) kernels.transpose(cols, k, b, g.ldb, dst, ldd);
  else kernels.copy(k, cols, b, g.ldb, dst, ldd);
}

// A small k: C is most of the work, so it is written a few whole rows at a time, as memory likes it.
template <class T>
void shallow(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  for (index j = 0; j < g.n; j += kPanels * kPanel<T>) {
    const index n = smaller(g.n - j, kPanels * kPanel<T>);
    const T* b = g.b + j * (g.b_transposed ? g.ldb : 1);
    index ldb = g.ldb;
    if (g.b_transposed) {
      pack_panel(kernels, g, n, g.k, b, scratch, spread<T>(n));
      b = scratch, ldb = spread<T>(n);
    }
    for (index i = 0; i < g.m; i += kLow)
      kernels.gemm(smaller(g.m - i, kLow), n, g.k, g.a + i * g.ras, g.ras, g.kas, b, ldb, g.c + i * g.ldc + j,
                   g.ldc, g.accumulate, g.ahead);
  }
}

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

template <class T>
void blocked(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  constexpr index kWidth = kPanel<T>;
  const bool a_packed = pack_a(g), b_packed = pack_b(g);
  if (g.k <= kShallow && g.n > kPanel<T> && !a_packed && (g.b_transposed || !b_packed)) {
    shallow(kernels, g, scratch);
    return;
  }
  T* const packed_a = scratch;
  T* const packed_b = scratch + (a_packed ? packed_a_size<T>(g.m, g.k) : 0);
  const index depth = balanced(g.k, deepest(g, b_packed)), height = balanced(g.m, kRows);
  const index b_row = g.b_transposed ? 1 : g.ldb, b_column = g.b_transposed ? g.ldb : 1;

  for (index j0 = 0; j0 < g.n; j0 += kPanels * kWidth) {
    const index n = smaller(g.n - j0, kPanels * kWidth);
    index p0 = 0;
    do {  // once even when k is 0, to write the zeros
      const index k = smaller(g.k - p0, depth);
      const bool accumulate = g.accumulate || p0 > 0;
      for (index i0 = 0; i0 < g.m; i0 += height) {
        const index m = smaller(g.m - i0, height);
        const T* a = g.a + i0 * g.ras + p0 * g.kas;
        index ras = g.ras, kas = g.kas;
        if (a_packed && kas == 1) {
          kernels.copy(m, k, a, ras, packed_a, spread<T>(k));
          a = packed_a, ras = spread<T>(k);
        } else if (a_packed) {
          kernels.transpose(k, m, a, kas, packed_a, spread<T>(k));
          a = packed_a, ras = spread<T>(k), kas = 1;
        }
        for (index j = 0; j < n; j += kWidth) {
          const index cols = smaller(n - j, kWidth);
          const T* b = g.b + p0 * b_row + (j0 + j) * b_column;
          index ldb = g.ldb;
          if (b_packed) {
            // Packed just before the first use: the panel is then in L1. With one block of A it is the last use.
            T* const panel = packed_b + (height < g.m ? j * k : 0);
            if (i0 == 0) pack_panel(kernels, g, cols, k, b, panel, kWidth);
            b = panel, ldb = kWidth;
          }
          kernels.gemm(m, cols, k, a, ras, kas, b, ldb, g.c + i0 * g.ldc + j0 + j, g.ldc, accumulate,
                       g.ahead);
        }
      }
      p0 += depth;
    } while (p0 < g.k);
  }
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

// What a product costs, about, in FMAs of a cache line: a vector is never done in part, and every element
// of a transposed B is moved.
template <class T> index cost(index m, index n, index k, bool b_transposed) {
  const index moved = b_transposed ? n * k * (m <= kDotRows ? 3 : 4) / 8 : 0;
  return m * blocks(n, kLine<T>) * k + moved;
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
  if (g.b_transposed && g.m <= kDotRows) by_dots(kernels, g, scratch);
  else blocked(kernels, g, scratch);
}

// The whole of g as one chain for each element.
template <class T>
void one_chain(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  T* const ct = scratch;
  if (g.accumulate || smaller(g.m, g.n) > kNarrow<T> ||
      cost<T>(g.n, g.m, g.k, g.kas == 1) + g.m * g.n >= cost<T>(g.m, g.n, g.k, g.b_transposed)) {
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

// Whether a block packs depends on where it lies, so both packs are always counted.
template <class T> index gemm_scratch(const Gemm<T>& g) {
  index size = packed_a_size<T>(g.m, g.k) + packed_b_size<T>(g.n, g.k);
  if (g.chain > 0) size += kPartialRows * kPartialPanels * kPanel<T>;
  // A product that is swapped may pack all of Aᵀ (shallow), one of dot products the rows of A.
  const index turned = smaller(g.k, kShallow) * spread<T>(kSwapped), rows = kDotRows * kDepth<T>;
  size += kSwapped * kNarrow<T> + (turned > rows ? turned : rows);
  return size;
}

template <class T>
void gemm_block(const kernels::Kernels<T>& kernels, const Gemm<T>& g, Range rows, Range cols,
                T* scratch) noexcept {
  if (rows.size() <= 0 || cols.size() <= 0) return;
  if (g.chain <= 0 || (g.k <= g.chain && !g.accumulate)) {
    // Small products are many: what is whole is not described a second time.
    const bool whole = rows.first == 0 && rows.last == g.m && cols.first == 0 && cols.last == g.n;
    if (whole) one_chain(kernels, g, scratch);
    else one_chain(kernels, part(g, rows, cols), scratch);
    return;
  }
  constexpr index kCols = kPartialPanels * kPanel<T>;
  T* const partial = scratch;
  scratch += kPartialRows * kCols;
  for (index i = rows.first; i < rows.last; i += kPartialRows) {
    for (index j = cols.first; j < cols.last; j += kCols) {
      const Range r{i, smaller(i + kPartialRows, rows.last)}, c{j, smaller(j + kCols, cols.last)};
      const Gemm<T> block = part(g, r, c);
      for (index p = 0; p < g.k; p += g.chain) {
        Gemm<T> link = block;
        link.k = smaller(g.k - p, g.chain);
        link.a += p * g.kas;
        link.b += p * (g.b_transposed ? 1 : g.ldb);
        link.accumulate = false;
        const bool direct = p == 0 && !g.accumulate;
        if (!direct) link.c = partial, link.ldc = kCols;
        one_chain(kernels, link, scratch);
        if (!direct) kernels.add(block.m, block.n, block.c, block.ldc, partial, kCols, block.c, block.ldc);
      }
    }
  }
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
