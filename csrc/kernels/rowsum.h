// rowsum.h — sums along a row in the one order of base/types.h: element i goes to partial
// i mod 16 in T, a fixed tree joins the partials of a chunk of 4,096 elements, and the chunks are
// added in ascending order in double. The vector width only decides how many partials share a
// register, so the bits are the same under every instruction set. Also the walk over a row in
// whole vectors with a masked tail, and the largest element of a row in the same order.
#pragma once
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// A row is walked by a callable f(i, n) that treats elements i, i + 1, …: n is Whole for a full
// vector and an index (1 <= n <= lanes) for the tail. load_n and store_n take either, so one
// generic lambda serves both:
//   row_sum<T>(cols, [&](index i, auto n) { return load_n(x + i, n) * load_n(z + i, n); })
struct Whole {};
template <class T> inline vec<T> load_n(const T* p, Whole) { return load(p); }
template <class T> inline void store_n(T* p, vec<T> v, Whole) { store(p, v); }

template <class T> struct LaneNumbers;
template <> struct LaneNumbers<float> {
  static constexpr std::int32_t value[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
};
template <> struct LaneNumbers<double> {
  static constexpr std::int64_t value[8] = {0, 1, 2, 3, 4, 5, 6, 7};
};

// The first n lanes of v; the others are `rest`.
template <class T> inline vec<T> first_n(vec<T> v, index n, vec<T> rest) {
  using Int = typename IntOf<T>::type;
  bits<T> lane;
  __builtin_memcpy(&lane, LaneNumbers<T>::value, sizeof lane);
  return lane < bits<T>{} + Int(n) ? v : rest;
}

template <class T, class F> inline void for_row(index cols, F&& f) {
  constexpr index L = lanes<T>();
  index i = 0;
  for (; i + L <= cols; i += L) f(i, Whole{});
  if (i < cols) f(i, cols - i);
}

// The same walk where f(i, n) is stored to y + i, each whole vector at an aligned address and, with Past,
// past the caches.
template <class T, bool Past, class F> inline void for_row_aligned(index n, T* y, F&& f) {
  constexpr index L = lanes<T>();
  const index over = index(reinterpret_cast<std::uintptr_t>(y) / sizeof(T)) % L;
  index i = over > 0 ? L - over : 0;
  if (i > n) i = n;
  if (i > 0) store_n(y, f(0, i), i);
  for (; i + L <= n; i += L) {
    if constexpr (Past) store_past(y + i, f(i, Whole{}));
    else store(y + i, f(i, Whole{}));
  }
  if (i < n) store_n(y + i, f(i, n - i), n - i);
  if constexpr (Past) stores_past_done();
}

// Joins the partials with a fixed tree: s[i] = join(s[i], s[i + 8]), then + 4, + 2, + 1.
template <class T, class Join> inline T join_partials(T* s, Join&& join) {
  for (index i = 0; i < 8; ++i) s[i] = join(s[i], s[i + 8]);
  for (index i = 0; i < 4; ++i) s[i] = join(s[i], s[i + 4]);
  for (index i = 0; i < 2; ++i) s[i] = join(s[i], s[i + 2]);
  return join(s[0], s[1]);
}

// One chunk of elements start <= i < end: partials begin at `empty` and take term(i, n) by
// join(partial, term), which must work on vectors and on numbers. Lanes past the end take `empty`.
template <class T, class Term, class Join>
inline T row_chunk(index start, index end, T empty, Term&& term, Join&& join) {
  constexpr index L = lanes<T>(), kVectors = kRowPartials / L;
  vec<T> s[kVectors];
  for (index v = 0; v < kVectors; ++v) s[v] = set1<T>(empty);
  index i = start;
  for (; i + kRowPartials <= end; i += kRowPartials)
    for (index v = 0; v < kVectors; ++v) s[v] = join(s[v], term(i + v * L, Whole{}));
  alignas(64) T partial[kRowPartials];
  for (index v = 0; v < kVectors; ++v) store(partial + v * L, s[v]);
  for (index v = 0; i < end; ++v, i += L) {
    const index n = end - i < L ? end - i : L;
    store(partial + v * L, join(load(partial + v * L), first_n<T>(term(i, n), n, set1<T>(empty))));
  }
  return join_partials<T>(partial, join);
}

// The sum over 0 <= i < n of term(i, lanes), a callable as for for_row that returns vec<T>; what
// it returns in the lanes past the end is ignored. It may store as it goes. 0 for n == 0.
template <class T, class Term> inline double row_sum(index n, Term&& term) {
  double total = 0;
  for (index start = 0; start < n; start += kRowChunk) {
    const index end = n - start < kRowChunk ? n : start + kRowChunk;
    total += double(row_chunk<T>(start, end, T(0), term, [](auto a, auto b) { return a + b; }));
  }
  return total;
}

// The largest element of x (n); NaN is passed over, -infinity for n == 0 or nothing but NaN.
template <class T> inline T row_max(index n, const T* x) {
  return row_chunk<T>(
      0, n, -T(__builtin_inf()), [&](index i, auto k) { return load_n(x + i, k); },
      [](auto a, auto b) { return b > a ? b : a; });
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
