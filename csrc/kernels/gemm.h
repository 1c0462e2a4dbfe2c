// gemm.h — the matrix product of blocks that are already in cache, and their copying. No
// packing, no cache blocking (ops/gemm.h does both). The register tile follows the outer-product
// scheme of Goto & van de Geijn 2008 ("Anatomy of high-performance matrix multiplication"): a row
// of B in vectors, one broadcast element of A per row of C, all of the C tile in registers.
// Shapes and aliasing: table.h.
#pragma once
#include "table.h"
#include "transpose.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// Tallest tile that is NV vectors wide: MR*NV accumulators + NV vectors of B + one broadcast fit
// the 32 (AVX-512) or 16 (AVX2, where a mask takes one more) vector registers. FMA has about 4
// cycles of latency on 2 pipes, so 8 chains are the least that keeps it busy; the wide, low tile
// serves products of few rows.
template <int NV> constexpr int tile_rows() {
#if defined(__AVX512F__)
  return NV == 4 ? 6 : 14;
#elif defined(__AVX2__)
  return NV == 4 ? 2 : NV == 2 ? 6 : 12;
#else
  return NV == 4 ? 1 : 4;
#endif
}

// The next row. Opaque, else the compiler computes the addresses of all rows before it starts, and
// the tile opens with a hundred integer instructions and a full stack.
template <class P> inline P after(P row, index ld) {
  row += ld;
  asm("" : "+r"(row));
  return row;
}

// Lines to fetch, so many at every step of the loop, `step` bytes on from one step to the next; 0 to fetch the same
// ones again and again.
constexpr int kLinesAStep = kStripBytes / kLineBytes;
struct Fetch {
  const char* at;
  index step;
};

// Lines shared by all of `steps` steps.
inline Fetch spread(const char* at, index lines, index steps) {
  return {at, index(std::uint32_t(kLineBytes * lines) / std::uint32_t(steps))};
}

inline Fetch take_stretch(Ahead& stretch, index steps) {
  const index most = kLinesAStep * steps, lines = stretch.lines < most ? stretch.lines : most;
  const Fetch next = spread(stretch.at, lines, steps);
  stretch.at += lines * kLineBytes;
  stretch.lines -= lines;
  return next;
}

inline Fetch take_strip(AheadStrips& strips, index steps) {
  const Fetch rows{strips.at + strips.done * strips.stride, strips.stride};
  strips.done += steps;
  if (strips.done >= strips.rows) strips.at += kStripBytes, strips.done = 0, --strips.strips;
  return rows;
}

// Short stretches are asked for here and now.
inline void take_short(AheadList& list) {
  for (index left = kShortAhead; list.next != list.last && list.next->lines - list.done <= left;
       ++list.next) {
    for (; list.done < list.next->lines; ++list.done, --left) fetch(list.next->at + list.done * kLineBytes);
    list.done = 0;
  }
}

inline Fetch take_listed(AheadList& list, index steps) {
  const index left = list.next->lines - list.done, most = kLinesAStep * steps;
  const char* const at = list.next->at + list.done * kLineBytes;
  if (left > most) {
    list.done += most;
    return {at, kStripBytes};
  }
  list.done = 0;
  ++list.next;
  return spread(at, left, steps);
}

// What the next `steps` steps read ahead: first what the product itself will read.
inline Fetch take(AheadQueue* ahead, index steps, const void* otherwise) {
  const Fetch nothing{static_cast<const char*>(otherwise), 0};
  if (!ahead || steps == 0) return nothing;
  if (ahead->stretch.lines > 0) return take_stretch(ahead->stretch, steps);
  if (ahead->strips.strips > 0) return take_strip(ahead->strips, steps);
  take_short(ahead->read);
  return ahead->read.next == ahead->read.last ? nothing : take_listed(ahead->read, steps);
}

// The next few lines to write, at once: there is no other kind of fetch among the slots of a tile.
inline void take_to_write(AheadQueue* ahead) {
  if (!ahead) return;
  AheadList& list = ahead->write;
  for (int left = 32; left > 0 && list.next != list.last; --left) {
    own(list.next->at + list.done * kLineBytes);
    if (++list.done == list.next->lines) list.done = 0, ++list.next;
  }
}

// A vector of the type V from the first `tail` elements at p, and from a whole one.
template <class V, class T> inline V load_part(const T* p, index tail) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) < sizeof(vec<T>)) return load_half_n(p, tail);
  else
#endif
    return load_n(p, tail);
}
template <class V, class W> inline V first_lanes(W v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) < sizeof(W)) return lower_half(v);
  else
#endif
    return v;
}

// How the last vector of a tile is used: whole, `tail` lanes of it, or `tail` lanes of a vector of half the
// size, where there is one. A processor that does a long vector in two halves takes half the time for it.
enum class Last { whole, part, half };

template <class T, Last Kind> struct LastVector {
  using type = vec<T>;
};
#if defined(__AVX512F__)
template <class T> struct LastVector<T, Last::half> {
  using type = half<T>;
};
#endif

// c (MR x NV vectors) = from + a (MR x k) * b (k x NV vectors); without from it begins at 0.
template <class T>
using Tile = void (*)(index k, const T* a, index ras, index kas, const T* b, index ldb, const T* from,
                      index ldf, T* c, index ldc, index tail, Fetch ahead);

template <class T, int MR, int NV, Last Kind>
__attribute__((noinline)) void gemm_tile(index k, const T* a, index ras, index kas, const T* b, index ldb,
                                         const T* from, index ldf, T* c, index ldc, index tail,
                                         Fetch ahead) noexcept {
  constexpr int L = int(lanes<T>());
  constexpr int W = Kind == Last::whole ? NV : NV - 1;  // vectors before the last
  using Rest = typename LastVector<T, Kind>::type;
  vec<T> acc[MR][W + 1] = {};  // one more, for W may be 0
  Rest rest[MR] = {};
  if (from) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i, from = after(from, ldf)) {
#pragma GCC unroll 4
      for (int j = 0; j < W; ++j) acc[i][j] = load<T>(from + j * L);
      if constexpr (Kind != Last::whole) rest[i] = load_part<Rest>(from + W * L, tail);
    }
  }

  // One pointer for each row of A would need more integer registers than there are. Five rows
  // share one: its offsets are 0, r, 2r, 3r, 4r, which the address modes scale for free.
  constexpr int kShare = 5, kBases = (MR + kShare - 1) / kShare;
  const char* base[kBases];
  index r = ras * index(sizeof(T)), r3 = 3 * r, step = kas * index(sizeof(T));
#pragma GCC unroll 4
  for (int g = 0; g < kBases; ++g) {
    base[g] = reinterpret_cast<const char*>(a) + kShare * g * r;
    asm("" : "+r"(base[g]));  // else the compiler makes one pointer per row again
  }
  asm("" : "+r"(r), "+r"(r3), "+r"(step));

  for (; k > 0; --k) {
#pragma GCC unroll 2
    for (int line = 0; line < kLinesAStep; ++line) fetch(ahead.at + line * kLineBytes);
    ahead.at += ahead.step;
    vec<T> bj[W + 1];
    Rest last{};
#pragma GCC unroll 4
    for (int j = 0; j < W; ++j) bj[j] = load<T>(b + j * L);
    if constexpr (Kind != Last::whole) last = load_part<Rest>(b + W * L, tail);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const int q = i % kShare;
      const index offset = q == 3 ? r3 : q * r;
      const T x = *reinterpret_cast<const T*>(base[i / kShare] + offset);
      const vec<T> ai = set1<T>(x);
#pragma GCC unroll 4
      for (int j = 0; j < W; ++j) acc[i][j] = fma(ai, bj[j], acc[i][j]);
      if constexpr (Kind != Last::whole)
        rest[i] = fma(W > 0 ? first_lanes<Rest>(ai) : x - Rest{}, last, rest[i]);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kBases; ++g) base[g] += step;
    b += ldb;
  }

#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i, c = after(c, ldc)) {
#pragma GCC unroll 4
    for (int j = 0; j < W; ++j) store<T>(c + j * L, acc[i][j]);
    if constexpr (Kind != Last::whole) store_n(c + W * L, rest[i], tail);
  }
}

// The tiles of one width by height, 1 … tile_rows.
template <class T, int NV, Last Kind> struct Tiles {
  static constexpr int kTallest = tile_rows<NV>();
  Tile<T> by_height[kTallest + 1] = {};
  constexpr Tiles() { fill<kTallest>(); }
  template <int MR> constexpr void fill() {
    by_height[MR] = &gemm_tile<T, MR, NV, Kind>;
    if constexpr (MR > 1) fill<MR - 1>();
  }
};
template <class T, int NV, Last Kind> constexpr Tiles<T, NV, Kind> kTiles;

constexpr index kPrefetchDepth = 128;  // a shallower product is small: its C is near

// The rows of a tile that comes later.
template <class T, int NV> inline void fetch_tile(const T* tile, index rows, index ld) {
  for (index i = 0; i < rows; ++i)
    for (int j = 0; j < NV; ++j) __builtin_prefetch(tile + i * ld + j * lanes<T>(), 1);
}

// All rows of one column panel, in tiles whose heights differ by one at most: a leftover tile of
// one or two rows would be bound by the latency of its few chains.
template <class T, int NV, Last Kind>
inline void gemm_panel(index m, index k, const T* a, index ras, index kas, const T* b, index ldb,
                       const T* from, index ldf, T* c, index ldc, index tail, index low, bool more,
                       AheadQueue* ahead) {
  constexpr index kTall = tile_rows<NV>();
  const index most = low < kTall ? low : kTall;
  const index tiles = m <= most ? 1 : (m + most - 1) / most, rows = m / tiles;
  const index taller = m - rows * tiles;
  const auto& by_height = kTiles<T, NV, Kind>.by_height;
  const Tile<T> rest = by_height[rows], tall = by_height[taller > 0 ? rows + 1 : rows];
  for (index t = 0; t < tiles; ++t) {
    const index height = rows + (t < taller);
    if (more && k >= kPrefetchDepth) {
      // The same rows of the next panel of C, which may be far away.
      fetch_tile<T, NV>(c + NV * lanes<T>(), height, ldc);
      if (from && from != c) fetch_tile<T, NV>(from + NV * lanes<T>(), height, ldf);
    }
    take_to_write(ahead);
    (t < taller ? tall : rest)(k, a, ras, kas, b, ldb, from, ldf, c, ldc, tail, take(ahead, k, a));
    a += height * ras;
    if (from) from += height * ldf;
    c += height * ldc;
  }
}

template <class V, V Value> struct Constant {
  static constexpr V value = Value;
};

template <class T>
void gemm(index m, index n, index k, const T* a, index ras, index kas, const T* b, index ldb, const T* from,
          index ldf, T* c, index ldc, index low, bool more, AheadQueue* ahead) noexcept {
  constexpr index L = lanes<T>();
  if (m <= 0) return;
  index j = 0;
  const auto panel = [&](auto vectors, auto kind, index tail) {
    gemm_panel<T, vectors.value, kind.value>(m, k, a, ras, kas, b + j, ldb, from ? from + j : nullptr, ldf,
                                             c + j, ldc, tail, low, more || j + vectors.value * L < n, ahead);
    j += vectors.value * L;
  };
  const auto last = [&](auto vectors) {
    const index tail = n - j - (vectors.value - 1) * L;
#if defined(__AVX512F__)
    if (tail <= L / 2) return panel(vectors, Constant<Last, Last::half>{}, tail);
#endif
    panel(vectors, Constant<Last, Last::part>{}, tail);
  };
  constexpr Constant<Last, Last::whole> whole;
  if (m <= tile_rows<4>())
    while (j + 4 * L <= n) panel(Constant<int, 4>{}, whole, 0);
  while (j + 2 * L <= n) panel(Constant<int, 2>{}, whole, 0);
  if (n - j > L) last(Constant<int, 2>{});
  else if (n - j > 0) last(Constant<int, 1>{});
}

template <class T>
void copy(index rows, index cols, const T* src, index lds, T* dst, index ldd) noexcept {
  constexpr index L = lanes<T>();
  const index whole = cols / L * L, tail = cols - whole;
  for (index i = 0; i < rows; ++i, src += lds, dst += ldd) {
    for (index j = 0; j < whole; j += L) store<T>(dst + j, load<T>(src + j));
    if (tail > 0) store_n(dst + whole, load_n(src + whole, tail), tail);
  }
}

template <class T> constexpr void add_gemm(Kernels<T>& k) {
  k.panel = lanes<T>() > 1 ? 2 * lanes<T>() : 128 / index(sizeof(T));
  k.tallest = tile_rows<2>();
#if defined(__AVX512F__)
  k.halves = true;
#else
  k.halves = false;
#endif
  k.gemm = &gemm<T>;
  k.copy = &copy<T>;
  k.transpose = &transpose<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
