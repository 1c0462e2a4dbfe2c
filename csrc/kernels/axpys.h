// axpys.h — the product of few rows with a matrix, A * B, as sums of scaled rows of B: a few rows of B pass
// at a time, each from its first element to its last, which is how memory gives them fastest; C stays in L1.
// Every element is one chain of FMAs in ascending p as in gemm.h. Shapes and aliasing: table.h.
#pragma once
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kFactors = 16;  // elements of A that stay in registers
#else
constexpr int kFactors = 8;
#endif

// c (M x n) = from + a (M x R) * b (R x n); from may be null, or c.
template <class T, int M, int R>
inline void add_rows(index n, const T* a, index ras, index kas, const T* b, index ldb, const T* from, T* c,
                     index ldc) {
  constexpr index L = lanes<T>();
  vec<T> factor[M][R];
  for (int i = 0; i < M; ++i)
    for (int q = 0; q < R; ++q) factor[i][q] = set1<T>(a[i * ras + q * kas]);
  const auto columns = [&](index j, auto read, auto write) {
    vec<T> sum[M];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sum[i] = from ? read(from + i * ldc + j) : vec<T>{};
#pragma GCC unroll 16
    for (int q = 0; q < R; ++q) {
      const vec<T> row = read(b + q * ldb + j);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sum[i] = fma(factor[i][q], row, sum[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) write(c + i * ldc + j, sum[i]);
  };
  index j = 0;
  for (; j + L <= n; j += L)
    columns(j, [](const T* p) { return load<T>(p); }, [](T* p, vec<T> v) { store<T>(p, v); });
  if (j < n)
    columns(j, [=](const T* p) { return load_n(p, n - j); }, [=](T* p, vec<T> v) { store_n(p, v, n - j); });
}

template <class T, int M>
inline void axpys_of(index n, index k, const T* a, index ras, index kas, const T* b, index ldb, T* c,
                     index ldc, bool accumulate) {
  constexpr int R = kFactors / M < 8 ? kFactors / M : 8;
  const T* from = accumulate ? c : nullptr;
  index p = 0;
  for (; p + R <= k; p += R, from = c)
    add_rows<T, M, R>(n, a + p * kas, ras, kas, b + p * ldb, ldb, from, c, ldc);
  for (; p < k; ++p, from = c) add_rows<T, M, 1>(n, a + p * kas, ras, kas, b + p * ldb, ldb, from, c, ldc);
}

template <class T>
void axpys(index m, index n, index k, const T* a, index ras, index kas, const T* b, index ldb, T* c,
           index ldc, bool accumulate) noexcept {
  if (m == 3) axpys_of<T, 3>(n, k, a, ras, kas, b, ldb, c, ldc, accumulate);
  else if (m == 2) axpys_of<T, 2>(n, k, a, ras, kas, b, ldb, c, ldc, accumulate);
  else axpys_of<T, 1>(n, k, a, ras, kas, b, ldb, c, ldc, accumulate);
}

template <class T> constexpr void add_axpys(Kernels<T>& k) { k.axpys = &axpys<T>; }

}  // namespace
}  // namespace gv::kernels::GV_ISA
