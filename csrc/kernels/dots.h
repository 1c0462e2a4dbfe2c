// dots.h — the product of few rows with the transpose of a matrix, A * Bᵀ: dot products of rows. Every
// element is one chain of FMAs in ascending p as in gemm.h, so its lanes are rows of B, which are
// transposed in registers on their way: B is read once, and nothing is packed.
// Shapes and aliasing: table.h.
#pragma once
#include "table.h"
#include "transpose.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// a * b + c, rounded once.
inline float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

#if defined(__AVX2__)
// S strips of lanes<T>() rows of B, whole ones when S > 1; k >= lanes<T>(). The first `head` columns go by
// themselves, so that after them no vector of B lies on two cache lines.
template <class T, int M, int S>
inline void dot_strips(index rows, index k, index head, const T* a, index lda, const T* b, index ldb, T* c,
                       index ldc, bool accumulate) {
  constexpr int L = int(lanes<T>());
  const T* row[S * L];  // those that are not there are read from the last one that is, and not stored
  for (int i = 0; i < S * L; ++i) row[i] = b + (i < rows ? i : rows - 1) * ldb;
  const index last = rows - (S - 1) * L;  // lanes of the last strip
  vec<T> acc[S][M] = {};
  if (accumulate)
    for (int s = 0; s < S; ++s)
      for (int i = 0; i < M; ++i) acc[s][i] = load_n(c + i * ldc + s * L, s < S - 1 ? L : last);

  // Less than a vector of columns, found together with others: `at` is where a whole one can be read.
  const auto few = [&](index first, index end, index at) {
    for (int s = 0; s < S; ++s) {
      vec<T> t[L];
      transpose_columns<T, 2>(row + s * L, at, t);
      vec<T> column[L];
      for (int q = 0; q < L; ++q) column[q] = t[q];
      for (index q = first; q < end; ++q)
        for (int i = 0; i < M; ++i) acc[s][i] = fma(set1<T>(a[i * lda + q]), column[q - at], acc[s][i]);
    }
  };
  if (head > 0) few(0, head, 0);
  index p = head;
  for (; p + L <= k; p += L)
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) {
#if defined(__AVX512F__)
      if (s > 0)
        __asm__ volatile("" ::: "memory");  // elements of A are read again, which costs nothing, not kept
#endif
      vec<T> t[L];
      transpose_columns<T, 2>(row + s * L, p, t);
#pragma GCC unroll 16
      for (int q = 0; q < L; ++q)
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) acc[s][i] = fma(set1<T>(a[i * lda + p + q]), t[q], acc[s][i]);
    }
  if (p < k) few(p, k, k - L);

  for (int s = 0; s < S; ++s)
    for (int i = 0; i < M; ++i) store_n(c + i * ldc + s * L, acc[s][i], s < S - 1 ? L : last);
}

template <class T, int M>
void dot_rows(index n, index k, const T* a, index lda, const T* b, index ldb, T* c, index ldc,
              bool accumulate) {
  constexpr index L = lanes<T>(), kLine = 64 / index(sizeof(T));
  // The chains of a second strip hide the latency of few, but more rows than a set of L1 has ways drive each
  // other out, where they are a multiple of 4 KiB apart, or half of them.
  constexpr int S = M <= 2 ? 2 : 1;
  const index stride = ldb * index(sizeof(T));
  const bool crowded = (stride % 4096 == 0 && S * L > 8) || (stride % 2048 == 0 && S * L > 16);
  const index past = index(reinterpret_cast<std::uintptr_t>(b) / sizeof(T)) % kLine;
  const index head = ldb % kLine == 0 && past > 0 ? (kLine - past) % L : 0;
  index j = 0;
  for (; !crowded && j + S * L <= n; j += S * L)
    dot_strips<T, M, S>(S * L, k, head, a, lda, b + j * ldb, ldb, c + j, ldc, accumulate);
  for (; j < n; j += L)
    dot_strips<T, M, 1>(j + L <= n ? L : n - j, k, head, a, lda, b + j * ldb, ldb, c + j, ldc, accumulate);
}
#endif

template <class T>
void dots(index m, index n, index k, const T* a, index lda, const T* b, index ldb, T* c, index ldc,
          bool accumulate) noexcept {
#if defined(__AVX2__)
  if (k >= lanes<T>()) {
    for (; m >= 4; m -= 4, a += 4 * lda, c += 4 * ldc)
      dot_rows<T, 4>(n, k, a, lda, b, ldb, c, ldc, accumulate);
    if (m == 3) dot_rows<T, 3>(n, k, a, lda, b, ldb, c, ldc, accumulate);
    if (m == 2) dot_rows<T, 2>(n, k, a, lda, b, ldb, c, ldc, accumulate);
    if (m == 1) dot_rows<T, 1>(n, k, a, lda, b, ldb, c, ldc, accumulate);
    return;
  }
#endif
  for (index i = 0; i < m; ++i)
    for (index j = 0; j < n; ++j) {
      T sum = accumulate ? c[i * ldc + j] : T(0);
      for (index p = 0; p < k; ++p) sum = fused(a[i * lda + p], b[j * ldb + p], sum);
      c[i * ldc + j] = sum;
    }
}

template <class T> constexpr void add_dots(Kernels<T>& k) { k.dots = &dots<T>; }

}  // namespace
}  // namespace gv::kernels::GV_ISA
