// transpose.h — the transposition of a matrix, in registers. A vector is seen as lanes of 128
// bits: it is filled with pieces of several source rows, such that all that is left is a 4x4
// (float) or 2x2 (double) transposition inside every lane and, with AVX-512, one exchange of
// lanes. Putting the pieces together is work for the load units; shuffles are the narrow resource.
// Shapes and aliasing: table.h.
#pragma once
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

#if defined(__AVX2__)
template <class T> constexpr int per_lane() { return 16 / int(sizeof(T)); }

// Interleave the low (high) halves of every lane. pair(): half a vector from each of two places.
#if defined(__AVX512F__)
inline vec<float> low(vec<float> a, vec<float> b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
}
inline vec<float> high(vec<float> a, vec<float> b) {
  return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
inline vec<double> low(vec<double> a, vec<double> b) {
  return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
}
inline vec<double> high(vec<double> a, vec<double> b) {
  return __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
inline vec<double> pair(const double* p, const double* q) {
  const __m512d v = _mm512_castpd256_pd512(_mm256_loadu_pd(p));
  return _mm512_mask_broadcast_f64x4(v, 0xf0, _mm256_loadu_pd(q));
}
inline vec<float> pair(const float* p, const float* q) {
  const __m512d v = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(p)));
  return (vec<float>)_mm512_mask_broadcast_f64x4(v, 0xf0, _mm256_castps_pd(_mm256_loadu_ps(q)));
}
// Lanes 0, 2 (1, 3) of a, then those of b.
template <class V> inline V even_lanes(V a, V b) {
  return (V)__builtin_shufflevector((vec<double>)a, (vec<double>)b, 0, 1, 4, 5, 8, 9, 12, 13);
}
template <class V> inline V odd_lanes(V a, V b) {
  return (V)__builtin_shufflevector((vec<double>)a, (vec<double>)b, 2, 3, 6, 7, 10, 11, 14, 15);
}
#else
inline vec<float> low(vec<float> a, vec<float> b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
}
inline vec<float> high(vec<float> a, vec<float> b) {
  return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
inline vec<double> low(vec<double> a, vec<double> b) { return __builtin_shufflevector(a, b, 0, 4, 2, 6); }
inline vec<double> high(vec<double> a, vec<double> b) { return __builtin_shufflevector(a, b, 1, 5, 3, 7); }
inline vec<float> pair(const float* p, const float* q) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1);
}
inline vec<double> pair(const double* p, const double* q) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(q), 1);
}
#endif

// Inside every lane: element j of t[i] becomes element i of t[j].
inline void transpose_lanes(vec<double>* t) {
  const vec<double> t0 = t[0], t1 = t[1];
  t[0] = low(t0, t1);
  t[1] = high(t0, t1);
}
inline void transpose_lanes(vec<float>* t) {
  const vec<double> a = (vec<double>)low(t[0], t[1]), b = (vec<double>)high(t[0], t[1]);
  const vec<double> c = (vec<double>)low(t[2], t[3]), d = (vec<double>)high(t[2], t[3]);
  t[0] = (vec<float>)low(a, c);
  t[1] = (vec<float>)high(a, c);
  t[2] = (vec<float>)low(b, d);
  t[3] = (vec<float>)high(b, d);
}

// Half a vector of columns (Halves = 1) or a whole one (2) of lanes<T>() rows: t[j] becomes column j. Both
// halves of a line are read at once, for where rows share a set of L1 it is soon gone.
template <class T, int Halves> inline void transpose_columns(const T* const* row, index j, vec<T>* t) {
  constexpr int E = per_lane<T>(), H = int(lanes<T>()) / 2;
#pragma GCC unroll 2
  for (int q = 0; q < H / E; ++q) {  // one pass, with AVX-512 two
#pragma GCC unroll 4
    for (int i = 0; i < E; ++i)
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h)
        t[h * H + q * E + i] = pair(row[2 * q * E + i] + j + h * H, row[2 * q * E + E + i] + j + h * H);
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h) transpose_lanes(t + h * H + q * E);
  }
#if defined(__AVX512F__)
#pragma GCC unroll 2
  for (int h = 0; h < Halves; ++h)
#pragma GCC unroll 4
    for (int i = 0; i < E; ++i) {
      const vec<T> top = t[h * H + i], bottom = t[h * H + E + i];
      t[h * H + i] = even_lanes(top, bottom);
      t[h * H + E + i] = odd_lanes(top, bottom);
    }
#endif
}

// The same, stored as rows of dst; Masked: `rows` of them are there.
template <class T, int Halves, bool Masked>
inline void transpose_block(const T* const* row, index j, index rows, T* dst, index ldd) {
  constexpr int N = Halves * int(lanes<T>()) / 2;
  vec<T> t[N];
  transpose_columns<T, Halves>(row, j, t);
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    if (Masked) store_n(dst + (j + i) * ldd, t[i], rows);
    else store<T>(dst + (j + i) * ldd, t[i]);
  }
}

// dst (cols x rows) = transpose of src, 1 <= rows <= lanes<T>(), cols at least half a vector. Rows
// that are not there are read from the last one that is, and not stored.
template <class T, bool Masked>
inline void transpose_strip(index rows, index cols, const T* src, index lds, T* dst, index ldd) {
  constexpr int L = int(lanes<T>()), H = L / 2;
  const T* row[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) row[i] = src + (Masked && i >= rows ? rows - 1 : i) * lds;
  index first = 0;
  for (; first + L <= cols; first += L) transpose_block<T, 2, Masked>(row, first, rows, dst, ldd);
  // The last columns overlap those before them: they are written twice, with the same values.
  for (; first < cols; first += H)
    transpose_block<T, 1, Masked>(row, first + H <= cols ? first : cols - H, rows, dst, ldd);
}
#endif

// The columns before those that begin a line of src, and at least half a vector of them, where rows share few sets of
// L1: there a line that is read in two parts is read twice. 0 where nothing is won.
template <class T> inline index before_lines(const T* src, index lds) {
  constexpr index kLine = kLineBytes / index(sizeof(T)), kCrowding = 2048;
  if (lds * index(sizeof(T)) % kCrowding != 0) return 0;
  const index over = index(reinterpret_cast<std::uintptr_t>(src) / sizeof(T)) % kLine;
  if (over == 0) return 0;
  return kLine - over + (kLine - over < lanes<T>() / 2 ? kLine : 0);
}

template <class T>
void transpose(index rows, index cols, const T* src, index lds, T* dst, index ldd) noexcept {
#if defined(__AVX2__)
  constexpr index L = lanes<T>();
  if (cols >= L / 2) {
    // Few columns at a time, so that lines of dst that two strips share are still in L1, and
    // fewer when a large power of two puts them all into the same few sets.
    const index chunk = ldd * index(sizeof(T)) > 256 ? 16 : 64;
    const index head = before_lines(src, lds);
    for (index j = 0, next; j < cols; j = next) {
      const index most = j == 0 && head > 0 ? head : chunk;
      next = cols - j < most + L ? cols : j + most;
      const T* s = src + j;
      T* d = dst + j * ldd;
      index i = 0;
      for (; i + L <= rows; i += L) transpose_strip<T, false>(L, next - j, s + i * lds, lds, d + i, ldd);
      if (i < rows) transpose_strip<T, true>(rows - i, next - j, s + i * lds, lds, d + i, ldd);
    }
    return;
  }
#endif
  for (index j = 0; j < cols; ++j)
    for (index i = 0; i < rows; ++i) dst[j * ldd + i] = src[i * lds + j];
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
