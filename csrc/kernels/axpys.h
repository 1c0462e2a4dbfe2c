// axpys.h — the product of few rows with a matrix, A * B, as sums of scaled rows of B: a few rows of B pass
// at a time, each from its first element to its last, which is how memory gives them fastest; the sums stay in L1.
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

// Rows of a matrix; null data stands for zeros.
template <class T> struct Rows {
  T* data;
  index ld;
};

// to (M x n) = from + a (M x R) * b (R x n); from may be to. The first `head` columns, fewer than a vector, go by
// themselves.
template <class T, int M, int R>
inline void add_rows(index n, index head, const T* a, index ras, index kas, const T* b, index ldb,
                     Rows<T> from, Rows<T> to) {
  constexpr index L = lanes<T>();
  vec<T> factor[M][R];
  for (int i = 0; i < M; ++i)
    for (int q = 0; q < R; ++q) factor[i][q] = set1<T>(a[i * ras + q * kas]);
  const auto columns = [&](index j, auto read, auto write) {
    vec<T> sum[M];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sum[i] = from.data ? read(from.data + i * from.ld + j) : vec<T>{};
#pragma GCC unroll 16
    for (int q = 0; q < R; ++q) {
      const vec<T> row = read(b + q * ldb + j);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sum[i] = fma(factor[i][q], row, sum[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) write(to.data + i * to.ld + j, sum[i]);
  };
  const auto some = [&](index j, index few) {
    columns(j, [=](const T* p) { return load_n(p, few); }, [=](T* p, vec<T> v) { store_n(p, v, few); });
  };
  index j = head;
  if (head > 0) some(0, head);
  for (; j + L <= n; j += L)
    columns(j, [](const T* p) { return load<T>(p); }, [](T* p, vec<T> v) { store<T>(p, v); });
  if (j < n) some(j, n - j);
}

// Rows of B that pass together, R at a time and the last ones by ever fewer.
template <class T, int M, int R>
inline void pass(index n, index head, index k, const T* a, index ras, index kas, const T* b, index ldb,
                 Rows<T> from, Rows<T> sums, Rows<T> to) {
  for (; k >= R; k -= R, a += R * kas, b += R * ldb, from = sums)
    add_rows<T, M, R>(n, head, a, ras, kas, b, ldb, from, k == R ? to : sums);
  if constexpr (R > 1)
    if (k > 0) pass<T, M, R / 2>(n, head, k, a, ras, kas, b, ldb, from, sums, to);
}

// So many columns at a time that their sums stay in L1. These lie on whole lines and, where every row of B lies alike,
// so does what is read of it: a vector on two lines would be read twice. They also lie half a page from the columns of B,
// whose rows may all share a set of L1.
template <class T, int M>
inline void axpys_of(index n, index k, const T* a, index ras, index kas, const T* b, index ldb, T* c,
                     index ldc, bool accumulate) {
  constexpr index L = lanes<T>(), kLine = kLineBytes / index(sizeof(T)), kPage = 4096 / index(sizeof(T));
  constexpr index kWidth = (16 << 10) / index(sizeof(T)) / M / kLine * kLine;
  constexpr int R = kFactors / M < 8 ? kFactors / M : 8;
  const auto place = [](const T* p) {
    return index(reinterpret_cast<std::uintptr_t>(p) / sizeof(T)) % kPage;
  };
  alignas(kLineBytes) T sums[kPage + M * (kWidth + kLine)];
  for (index j = 0; j < n; j += kWidth) {
    const index width = n - j < kWidth ? n - j : kWidth, over = place(b + j) % L;
    const index head = ldb % L == 0 && over > 0 && L - over < width ? L - over : 0;
    const index apart = (place(b + j) + 3 * kPage / 2 - place(sums)) % kPage;
    const Rows<T> result{c + j, ldc}, own{sums + (head > 0 ? apart : apart / kLine * kLine), kWidth + kLine};
    pass<T, M, R>(width, head, k, a, ras, kas, b + j, ldb, accumulate ? result : Rows<T>{nullptr, 0}, own,
                  result);
  }
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
