// gemm_blocked.h — a large product in blocks as in Goto & van de Geijn 2008: a panel of B stays near while the rows
// of A pass. Here all blocks of k pass before the next rows do: the chains of FMAs are carried from one to the next
// in a block of scratch that stays in L2, so that the blocking never shows in the bits, and C itself, which may be
// far away with rows that crowd few sets of the caches, is written once. Part of gemm.cpp, which decides what goes
// this way.
#pragma once
#include <cstdint>

#include "../base/caches.h"
#include "gemm.h"

namespace gv::ops {
namespace {

template <class T> constexpr index kLine =
    kernels::kLineBytes / index(sizeof(T));  // elements of a cache line
// Columns of the widest panel of B. That of every instruction set divides it.
template <class T> constexpr index kPanel = 128 / index(sizeof(T));
// Longest block of k, but where L1 is small.
template <class T> constexpr index kDepth = 2048 / index(sizeof(T));
constexpr index kPanelBytes = 32 << 10;  // of a panel of B that stays in an L1
constexpr index kRoomy = 48 << 10;  // of so many bytes
constexpr index kSet = 4096;  // bytes apart, lines share a set of L1: so much of it is one way
constexpr index kTall = 14;  // rows of the tallest tile
// Most rows of A in a block, of floats ten of the tallest tiles; and how many such blocks L2 could hold.
template <class T> constexpr index kRows = 560 / index(sizeof(T));
constexpr index kBlocksInL2 = 6;
constexpr index kShallow = 32, kLow = 12;  // a product of so small k goes by so few rows
constexpr index kFewRows = 48;  // so few rows do not win back a copy of B, but for a narrow tile
// Most panels in a block of C, of which A is packed once. A block of more than few rows that is carried has fewer:
// it stays in L2.
constexpr index kPanels = 64, kCarriedPanels = 32;
constexpr index kLong = 1024;  // so much of k between two visits to C, in one block where L1 is small
constexpr index kStream = 128 << 10;  // bytes of a block of B that passes row by row
constexpr index kNear = 128 << 10;  // bytes of a B that lies in L2 when the step of a plan comes to it
constexpr index kFar = 4 << 20;  // of one that comes from memory in any case
constexpr index kPanelsAhead = 2;  // the last line of a panel may be the first of the next
template <class T> constexpr index kStrip = kernels::kStripBytes / index(sizeof(T));

constexpr index smaller(index x, index y) { return x < y ? x : y; }
constexpr index larger(index x, index y) { return x < y ? y : x; }
constexpr index blocks(index n, index largest) { return (n + largest - 1) / largest; }
// n, up to a whole block.
constexpr index whole(index n, index block) { return blocks(n, block) * block; }
// Size of the blocks when n is cut into as few as possible, all of nearly the same size.
constexpr index balanced(index n, index largest) { return n <= largest ? n : blocks(n, blocks(n, largest)); }
// Leading dimension of at least n elements: an odd number of lines, so that rows spread over all
// sets of the cache.
template <class T> constexpr index spread(index n) { return (blocks(n, kLine<T>) | 1) * kLine<T>; }

// Whether elements need more than one chain.
template <class T> bool linked(const Gemm<T>& g) { return g.chain > 0 && (g.k > g.chain || g.accumulate); }
// So much of k passes at most between two visits to C: whole chains.
template <class T> index longest(const Gemm<T>& g) {
  return !linked(g) ? kLong : g.chain < kLong ? kLong / g.chain * g.chain : g.chain;
}

template <class T> index most_columns(index m, bool carries) {
  return (carries && m > kFewRows ? kCarriedPanels : kPanels) * kPanel<T>;
}
// For any part of m x n.
template <class T> index carried_size(index m, index n) {
  return larger(smaller(m, kFewRows) * spread<T>(smaller(n, most_columns<T>(1, true))),
                smaller(m, kRows<T>) * spread<T>(smaller(n, most_columns<T>(m, true))));
}
template <class T> index packed_a_size(index m, index k) {
  return smaller(m, kRows<T>) * spread<T>(smaller(k, kLong));
}

// Whether the rows of A share the sets of L1. A small L1, through which all else streams, has a way for each row of a
// tile that is as low as that.
template <class T> bool crowded(const Gemm<T>& g) {
  return g.kas == 1 && g.ras * index(sizeof(T)) % kSet == 0;
}
inline bool small_first() { return caches().first < kRoomy; }

template <class T> index most_tile_rows(const Gemm<T>& g, bool a_packed) {
  return crowded(g) && !a_packed && small_first() ? larger(1, caches().first / kSet) : kRows<T>;
}

// A is packed row by row where that pays. In an L1 in which a panel of B is to stay: where its rows share the sets,
// and where other workers wrote it, so that their lines are fetched once and in order. And where it lies by columns,
// so that each step of a tile takes a few elements of another line. The tallest tile uses most of that line, and
// where the processor does a long vector in halves (L1 is small there) a step gives it the time to come from L2, in
// which these lines stay from tile to tile unless they are too many, or crowd few of its sets. Few panels read A too
// few times to win back the copy. The bounds are measured ones.
template <class T> bool pack_a(const kernels::Kernels<T>& kernels, const Gemm<T>& g) {
  constexpr index kWinning = 8 * kPanel<T>, kFarSteps = 6 << 20, kFarCrowdedSteps = 4 << 20;
  if (g.m < kLine<T> || g.k < kLine<T>) return false;
  if (g.ras == 1 && g.kas > 1) {
    const index step = g.kas * index(sizeof(T)), steps = smaller(g.k, kLong) * step;
    const index far = step % kSet == 0 && g.n >= 4 * kWinning ? kFarCrowdedSteps : kFarSteps;
    if (kernels.tallest == kTall && small_first() && steps < far) return false;
    return g.n >= kWinning && g.k > kShallow;
  }
  return !small_first() && ((crowded(g) && g.n >= 2 * kWinning) || (g.fresh && g.n >= 2 * kPanel<T>));
}

// B is packed where the copy is won back by the rows of A that come to it: where its vectors would lie on two lines
// each, which costs less where the processor does long vectors in halves (L1 is small there), and where it does not
// stay in L2 until the next rows come. A tile that is narrower than a cached panel comes back to it more often and
// likes it packed from fewer rows on, soonest where the rows of B share few sets of L1, in which the panel then never
// is. The bounds are measured ones.
template <class T> bool pack_b(const kernels::Kernels<T>& kernels, const Gemm<T>& g) {
  if (g.b_transposed) return true;
  const bool narrow = kernels.panel < kPanel<T>;
  const index row = g.ldb * index(sizeof(T)), bytes = g.n * g.k * index(sizeof(T)), second = caches().second;
  if (narrow && row % kSet == 0 && g.m > 12) return true;
  if (narrow && row % 512 == 0 && row >= 1024 && g.k > kShallow && g.m > (row > 1024 ? 20 : 40)) return true;
  if (g.m <= kFewRows) return false;
  if (!narrow && small_first())
    return g.k > kShallow && g.m > (bytes > second ? 96 : bytes > second / 2 ? 256 : 512);
  const bool whole_lines = (reinterpret_cast<std::uintptr_t>(g.b) | std::uintptr_t(row)) % 64 == 0;
  if (!whole_lines && g.m > 96 && g.k > (g.n % kPanel<T> == 0 ? 48 : 160)) return true;
  if (whole_lines && !narrow) return g.m > kRows<T> && bytes > 512 * 1024;
  return row * g.k > (g.m < 256 ? 512 : 256) * 1024;
}

// Longest block of k. Every tile reads a panel of B again. Where L1 has room for a panel beside a tile's rows of A,
// the panel is cut to stay there. Where it has not, wide tiles, and narrow ones from a copy, are fed from L2, which
// keeps up with them: then a shorter block only costs visits to C. Else a large B for few rows goes by blocks of few
// of its own, which memory gives in long stretches; a column panel of all its rows would be a walk from page to page.
template <class T> index deepest(const kernels::Kernels<T>& kernels, const Gemm<T>& g, bool b_packed) {
  const bool narrow = kernels.panel < kPanel<T>;
  const index near = kPanelBytes / ((b_packed ? kernels.panel : kPanel<T>)*index(sizeof(T)));
  if (small_first() && (b_packed || !narrow)) return kLong;
  if (b_packed && g.m <= kLine<T>) return smaller(kDepth<T>, near / 2);
  if (b_packed || g.m > kFewRows) return smaller(kDepth<T>, near);
  const index row = g.n * index(sizeof(T));
  if (row * g.k < 8 * kStream) return kDepth<T>;
  return smaller(kDepth<T>, kStream / row < kShallow ? kShallow : kStream / row);
}

// Most rows of a block of A that is so deep, of more than one.
template <class T> index highest(index depth) {
  const index fit = caches().second / kBlocksInL2 / (larger(depth, 1) * index(sizeof(T)));
  return smaller(kRows<T>, larger(kTall, fit));
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
    for (index i = 0; i < g.m; i += kLow) {
      T* const c = g.c + i * g.ldc + j;
      kernels.gemm(smaller(g.m - i, kLow), n, g.k, g.a + i * g.ras, g.ras, g.kas, b, ldb,
                   g.accumulate ? c : nullptr, g.ldc, c, g.ldc, kLow, false, g.ahead);
    }
  }
}

// How a product is cut, and where its copies lie.
template <class T> struct Cut {
  bool a_packed, b_packed, linked;
  bool fetches;  // what it will read of B
  index low;  // most rows of a tile
  index panel;  // columns of B at a time
  index height, columns, depth;  // of a block
  index length;  // k between two visits to C
  T *carried, *a, *b;
  kernels::AheadQueue* ahead;
};

template <class T> Cut<T> cut_of(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  Cut<T> cut;
  cut.a_packed = pack_a(kernels, g), cut.b_packed = pack_b(kernels, g), cut.linked = linked(g);
  cut.low = most_tile_rows(g, cut.a_packed);
  cut.ahead = g.ahead;
  cut.fetches = g.n * g.k * index(sizeof(T)) > (g.ahead || cut.b_packed ? kNear : kFar);
  cut.panel = cut.b_packed ? kernels.panel : kPanel<T>;
  index length = g.k;
  if (cut.linked) length = smaller(g.k, g.chain);
  else if (cut.b_packed) length = balanced(g.k, kLong);
  cut.depth = balanced(length, deepest(kernels, g, cut.b_packed));
  cut.height = balanced(g.m, cut.b_packed && g.m > kRows<T> ? highest<T>(cut.depth) : kRows<T>);
  cut.length = g.k;
  if (cut.b_packed && cut.height < g.m) cut.length = cut.linked ? longest(g) : length;
  const bool carries = cut.linked || g.k > cut.depth;
  cut.columns = most_columns<T>(g.m, carries);
  cut.carried = scratch;
  cut.a = cut.carried + (carries ? carried_size<T>(g.m, g.n) : 0);
  cut.b = cut.a + (cut.a_packed ? packed_a_size<T>(g.m, g.k) : 0);
  return cut;
}

template <class T> kernels::Ahead stretch_of(const T* at, index n) {
  return {reinterpret_cast<const char*>(at), blocks(n, kLine<T>)};
}

template <class T> kernels::AheadStrips strips_of(const T* at, index rows, index stride, index strips) {
  return {reinterpret_cast<const char*>(at), rows, stride * index(sizeof(T)), strips, 0};
}

// While the panel at column j of a block is multiplied, what its successors read of B is asked for. Of a B as it lies
// that is the next panel but one, at last the first ones of the next block of k.
template <class T> void fetch_next(const Gemm<T>& g, const Cut<T>& cut, Range cols, Range depth, index j) {
  index next = j + kPanelsAhead * cut.panel, row = depth.first;
  if (next >= cols.size()) next -= cols.size(), row = depth.last;
  if (row >= g.k || next >= cols.size()) return;
  cut.ahead->strips = strips_of(g.b + row * g.ldb + cols.first + next, depth.size(), g.ldb, 1);
}

// A panel of a transposed B is a few long rows. Where they follow each other, the next panel is one stretch; else a
// strip of as many rows is taken as a tile has steps, so that all strips are there when the first of them are wanted.
template <class T>
void fetch_next_transposed(const Gemm<T>& g, const Cut<T>& cut, Range cols, Range depth, index j) {
  const index n = cols.size(), k = depth.size();
  if (g.ldb == k) {
    const index next = cols.first + j + cut.panel;
    if (next < g.n) cut.ahead->stretch = stretch_of(g.b + next * k, smaller(g.n - next, cut.panel) * k);
    return;
  }
  const index height = larger(cut.panel, k / cut.panel * cut.panel),
              strip = j % height / cut.panel * kStrip<T>;
  index next = (j / height + 1) * height, column = depth.first;
  if (next >= n) next = 0, column = depth.last;
  if (column >= g.k || strip >= k) return;
  const T* const at = g.b + (cols.first + next) * g.ldb + column + strip;
  cut.ahead->strips = strips_of(at, smaller(height, n - next), g.ldb, 1);
}

// Of a B that was packed for earlier rows: its next panel.
template <class T> void fetch_packed(const Cut<T>& cut, const T* panel, index k) {
  cut.ahead->stretch = stretch_of(panel + k * cut.panel, k * cut.panel);
}

// While the last panel is multiplied, the next rows of A, from row `first` on, where the same block of k is next.
template <class T> void fetch_rows(const Gemm<T>& g, const Cut<T>& cut, Range depth, index first) {
  const index k = depth.size(), m = smaller(cut.height, g.m - first);
  if (first >= g.m || k < smaller(cut.length, g.k - depth.first)) return;
  const T* const at = g.a + first * g.ras + depth.first * g.kas;
  if (g.kas == 1 && g.ras == k) cut.ahead->stretch = stretch_of(at, m * k);
  else if (g.ras == 1 && g.kas > 1) cut.ahead->strips = strips_of(at, k, g.kas, blocks(m, kStrip<T>));
}

// to = from + A * B for some rows and columns of C and a block of k; first is where the k begins of which B is kept.
template <class T>
void multiply(const kernels::Kernels<T>& kernels, const Gemm<T>& g, const Cut<T>& cut, Range rows, Range cols,
              Range depth, index first, const T* from, index ldf, T* to, index ldt) {
  const index m = rows.size(), n = cols.size(), k = depth.size();
  const index b_row = g.b_transposed ? 1 : g.ldb, b_column = g.b_transposed ? g.ldb : 1;
  const T* a = g.a + rows.first * g.ras + depth.first * g.kas;
  index ras = g.ras, kas = g.kas;
  if (cut.a_packed && kas == 1) {
    kernels.copy(m, k, a, ras, cut.a, spread<T>(k));
    a = cut.a, ras = spread<T>(k);
  } else if (cut.a_packed) {
    kernels.transpose(k, m, a, kas, cut.a, spread<T>(k));
    a = cut.a, ras = spread<T>(k), kas = 1;
  }
  // Packed just before the first use: the panel is then in L1. With one block of A it is the last use.
  T* const packed = cut.b + (cut.height < g.m ? (depth.first - first) * whole(n, cut.panel) : 0);
  const index next = cut.height < g.m ? k : 0;
  for (index j = 0; j < n; j += cut.panel) {
    const index width = smaller(n - j, cut.panel);
    const T* b = g.b + depth.first * b_row + (cols.first + j) * b_column;
    index ldb = g.ldb;
    if (cut.b_packed) {
      T* const panel = packed + j * next;
      if (rows.first == 0) pack_panel(kernels, g, width, k, b, panel, cut.panel);
      else if (cut.fetches && j + width < n) fetch_packed(cut, panel, k);
      b = panel, ldb = cut.panel;
    }
    if (cut.fetches && rows.first == 0)
      (g.b_transposed ? fetch_next_transposed<T> : fetch_next<T>)(g, cut, cols, depth, j);
    if (cut.fetches && j + width >= n) fetch_rows(g, cut, depth, rows.last);
    kernels.gemm(m, width, k, a, ras, kas, b, ldb, from ? from + j : nullptr, ldf, to + j, ldt, cut.low,
                 j + width < n, cut.ahead);
  }
}

// Some rows and columns of C, over so much of k as lies between two visits to it.
template <class T>
void advance(const kernels::Kernels<T>& kernels, const Gemm<T>& g, const Cut<T>& cut, Range rows, Range cols,
             Range length) {
  T* const c = g.c + rows.first * g.ldc + cols.first;
  const index ldc = spread<T>(cols.size());
  index p = length.first;
  do {
    const index end = cut.linked ? smaller(p + g.chain, length.last) : length.last;
    const bool more = g.accumulate || p > 0;  // than this chain
    const T* from = more && !cut.linked ? c : nullptr;
    index ldf = g.ldc;
    do {  // once even when k is 0, to write the zeros
      const Range depth{p, smaller(p + cut.depth, end)};
      const bool stays = depth.last < end || (more && cut.linked);
      T* const to = stays ? cut.carried : c;
      multiply(kernels, g, cut, rows, cols, depth, length.first, from, ldf, to, stays ? ldc : g.ldc);
      from = to, ldf = ldc;
      p = depth.last;
    } while (p < end);
    if (more && cut.linked) kernels.add(rows.size(), cols.size(), c, g.ldc, cut.carried, ldc, c, g.ldc);
  } while (p < length.last);
}

template <class T>
void blocked(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch) {
  Cut<T> cut = cut_of(kernels, g, scratch);
  kernels::AheadQueue own{};
  if (cut.fetches && !cut.ahead) cut.ahead = &own;
  if (g.k <= kShallow && g.n > kPanel<T> && !cut.linked && !cut.a_packed &&
      (g.b_transposed || !cut.b_packed)) {
    shallow(kernels, g, scratch);
    return;
  }
  for (index j = 0; j < g.n; j += cut.columns) {
    const Range cols{j, smaller(j + cut.columns, g.n)};
    index p = 0;
    do {
      const Range length{p, smaller(p + cut.length, g.k)};
      for (index i = 0; i < g.m; i += cut.height)
        advance(kernels, g, cut, Range{i, smaller(i + cut.height, g.m)}, cols, length);
      p = length.last;
    } while (p < g.k);
  }
  if (cut.fetches) cut.ahead->stretch = {}, cut.ahead->strips = {};
}

}  // namespace
}  // namespace gv::ops
