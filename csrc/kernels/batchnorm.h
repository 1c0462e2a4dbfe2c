// batchnorm.h — batch normalisation over the rows of a panel: moments, coefficients, the affine
// form y = (x - m)*a + c and its gradient. Not here: which rows and columns a worker takes, and
// the order of the blocks. Ioffe & Szegedy 2015 (arXiv 1502.03167); moments by a shifted two-pass
// sum with the correction of Chan, Golub, LeVeque 1983; blocks merged as in Chan et al. 1979.
// Signatures, shapes and aliasing: table.h.
//
// Columns go in groups of a few vectors that live in registers while the loop runs down the rows.
// What is done once per column is computed in double, on vectors, and rounded to T at the end.
#pragma once
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// G vectors of columns starting at first; with Full == false one vector, of which n lanes exist.
template <class T, int G, bool Full> struct ColumnGroup {
  static constexpr int vectors = G;
  index first, n;
  vec<T> read(const T* row, int v) const {
    if constexpr (Full) return load(row + first + v * lanes<T>());
    else return load_n(row + first, n);
  }
  void write(T* row, int v, vec<T> value) const {
    if constexpr (Full) store(row + first + v * lanes<T>(), value);
    else store_n(row + first, value, n);
  }
};

template <class T, int G, class Body> inline void for_column_groups(index cols, Body&& body) {
  index j = 0;
  for (; j + G * lanes<T>() <= cols; j += G * lanes<T>()) body(ColumnGroup<T, G, true>{j, lanes<T>()});
  for (; j + lanes<T>() <= cols; j += lanes<T>()) body(ColumnGroup<T, 1, true>{j, lanes<T>()});
  if (j < cols) body(ColumnGroup<T, 1, false>{j, cols - j});
}

// Register budgets: sums hold 2 or 3 * G * kBlockPartials accumulators, applications up to 6 * G vectors.
#if defined(__AVX512F__)
constexpr int kSumVectors = 2, kApplyVectors = 4;
#else
constexpr int kSumVectors = 1, kApplyVectors = 2;
#endif

// lanes<double>() elements of T as doubles, and back; n of them exist.
template <class T> struct Widened {
  typedef T narrow __attribute__((vector_size(lanes<double>() * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <class T> inline vec<double> load_wide(const T* p) {
  return __builtin_convertvector(*reinterpret_cast<const typename Widened<T>::narrow*>(p), vec<double>);
}
template <class T> inline void store_wide(T* p, vec<double> v) {
  typedef T narrow __attribute__((vector_size(lanes<double>() * sizeof(T))));
  *reinterpret_cast<typename Widened<T>::narrow*>(p) = __builtin_convertvector(v, narrow);
}
template <class T> inline vec<double> load_wide(const T* p, index n) {
  if (n == lanes<double>()) return load_wide(p);
  T padded[lanes<double>()] = {};
  for (index i = 0; i < n; ++i) padded[i] = p[i];
  return load_wide(padded);
}
template <class T> inline void store_wide(T* p, vec<double> v, index n) {
  if (n == lanes<double>()) return store_wide(p, v);
  T padded[lanes<double>()];
  store_wide(padded, v);
  for (index i = 0; i < n; ++i) p[i] = padded[i];
}

// body(j, n): columns j … j+n, n == lanes<double>() but for the last.
template <class Body> inline void for_wide_columns(index cols, Body&& body) {
  index j = 0;
  for (; j + lanes<double>() <= cols; j += lanes<double>()) body(j, lanes<double>());
  if (j < cols) body(j, cols - j);
}

// A group's T vectors into n elements of an array of doubles.
template <class T, class Group> inline void write_wide(const Group& group, int v, vec<T> value, double* out) {
  T spilled[lanes<T>()];
  store(spilled, value);
  double* p = out + group.first + v * lanes<T>();
  const index n = group.n;
  for (index i = 0; i < n; i += lanes<double>()) {
    store_wide(p + i, load_wide(spilled + i), n - i < lanes<double>() ? n - i : lanes<double>());
  }
}

// The lines of the tile that is read after this one, asked for a few at a time while the sums of this
// one are taken: else memory would wait for the arithmetic. Row by row, as memory likes it.
template <class T> class NextTile {
 public:
  static constexpr bool some = true;
  NextTile(const T* next, index rows, index cols, index ld)
      : line_(reinterpret_cast<const char*>(next)),
        width_((ld == cols ? rows * cols : cols) * index(sizeof(T))),
        step_(ld * index(sizeof(T))),
        rows_(ld == cols ? 1 : rows),
        end_(line_ + width_) {}
  // As many lines as four rows of `Vectors` vectors have, divided among `Passes`.
  template <int Vectors, int Passes> void fetch_some() {
    constexpr int kLine = 64, kWhole = 4 * Vectors * kVectorBytes<T> / (kLine * Passes);
    constexpr int kLines = kWhole > 0 ? kWhole : 1;
    if (rows_ == 0) return;
#pragma GCC unroll 8
    for (int i = 0; i < kLines; ++i) fetch(line_ + i * kLine);
    line_ += kLines * kLine;
    if (line_ < end_) return;
    end_ += step_;
    line_ = end_ - width_;
    --rows_;
  }

 private:
  const char* line_;
  index width_, step_, rows_;
  const char* end_;
};
struct Nothing {  // the block and its surroundings are in cache
  static constexpr bool some = false;
  template <int, int> void fetch_some() {}
};

// Calls row(r, partial) for every row, partial = r mod kBlockPartials known to the compiler.
template <int P> struct Partial {
  static constexpr int value = P;
};
template <class Row> inline void for_rows(index rows, Row&& row) {
  static_assert(kBlockPartials == 4, "the unrolled loop below");
  index r = 0;
  for (; r + 4 <= rows; r += 4) {
    row(r, Partial<0>{});
    row(r + 1, Partial<1>{});
    row(r + 2, Partial<2>{});
    row(r + 3, Partial<3>{});
  }
  if (r < rows) row(r, Partial<0>{});
  if (r + 1 < rows) row(r + 1, Partial<1>{});
  if (r + 2 < rows) row(r + 2, Partial<2>{});
}

// One vector's partial sums: named members, because an array zeroed as a whole stays in memory.
template <class T> struct Sums {
  vec<T> s0 = {}, s1 = {}, s2 = {}, s3 = {};
  template <int P> vec<T>& at() {
    if constexpr (P == 0) return s0;
    else if constexpr (P == 1) return s1;
    else if constexpr (P == 2) return s2;
    else return s3;
  }
  vec<T> total() const { return (s0 + s1) + (s2 + s3); }
};

// Σd and Σd² of the distances d from centre, as the moments of count rows: n columns.
template <class T>
inline void finish_moments(index n, double count, vec<T> centre, vec<T> sum, vec<T> squares, double* mean,
                           double* m2) {
  T m[lanes<T>()], s[lanes<T>()], q[lanes<T>()];
  store(m, centre);
  store(s, sum);
  store(q, squares);
  for (index i = 0; i < n; i += lanes<double>()) {
    const index some = n - i < lanes<double>() ? n - i : lanes<double>();
    const vec<double> first = load_wide(s + i), offset = first / count;
    const vec<double> spread = load_wide(q + i) - first * offset;
    store_wide(mean + i, load_wide(m + i) + offset, some);
    // Rounding may leave a tiny negative number in a constant column; NaN stays NaN.
    store_wide(m2 + i, spread < 0.0 ? vec<double>{} : spread, some);
  }
}

// The moments of a group of columns from their distances to a centre; read(r, v) is vector v of row r.
template <class T, class Group, class Row, class After>
inline void moments_around(const Group& group, index rows, const vec<T>* centre, Row&& read, After&& after,
                           double* mean, double* m2) {
  constexpr int G = Group::vectors;
  Sums<T> sum[G], squares[G];
  for_rows(rows, [&](index r, auto partial) {
    constexpr int p = decltype(partial)::value;
    for (int v = 0; v < G; ++v) {
      const vec<T> d = read(r, v) - centre[v];
      vec<T>& square = squares[v].template at<p>();
      sum[v].template at<p>() += d;
      square = fma(d, d, square);
    }
    if constexpr (p == kBlockPartials - 1) after();
  });
#pragma GCC unroll 4  // else the sums stay in memory
  for (int v = 0; v < G; ++v) {
    const index j = group.first + v * lanes<T>();
    finish_moments<T>(group.n, double(rows), centre[v], sum[v].total(), squares[v].total(), mean + j, m2 + j);
  }
}

// From memory the second pass reads a copy, which stays in L1 whatever the distance of the rows of x: where
// that is a power of two, they push each other out.
template <class T, class Next>
inline void moments_as(index rows, index cols, const T* x, index ldx, Next next, double* mean, double* m2) {
  const vec<T> inverse = set1<T>(T(1.0 / double(rows)));
  for_column_groups<T, kSumVectors>(cols, [=, &next](auto group) {
    constexpr int G = decltype(group)::vectors;
    constexpr index L = lanes<T>();
    alignas(64) T kept[Next::some ? kRowBlock * G * L : 1];
    Next ahead = next;  // a copy stays in registers
    vec<T> m[G];
    Sums<T> sum[G];
    for (int v = 0; v < G; ++v) m[v] = group.read(x, v);
    for_rows(rows, [&](index r, auto partial) {
      constexpr int p = decltype(partial)::value;
      for (int v = 0; v < G; ++v) {
        const vec<T> value = group.read(x + r * ldx, v);
        if constexpr (Next::some) store(kept + (r * G + v) * L, value);
        sum[v].template at<p>() += value - m[v];
      }
      if constexpr (p == kBlockPartials - 1) ahead.template fetch_some<G, 2>();
    });
    for (int v = 0; v < G; ++v) m[v] = fma(sum[v].total(), inverse, m[v]);
    const auto read = [&](index r, int v) {
      return Next::some ? load(kept + (r * G + v) * L) : group.read(x + r * ldx, v);
    };
    moments_around<T>(group, rows, m, read, [&] { ahead.template fetch_some<G, 2>(); }, mean, m2);
    next = ahead;
  });
}

// The moments of one column in double, in which the square of no float overflows.
template <class T>
__attribute__((noinline, cold)) void wide_moments(index rows, const T* x, index ldx, double* mean,
                                                  double* m2) {
  *mean = *m2 = 0;
  for (index r = 0; r < rows; ++r) *mean += double(x[r * ldx]);
  *mean /= double(rows);
  for (index r = 0; r < rows; ++r) {
    const double d = double(x[r * ldx]) - *mean;
    *m2 += d * d;
  }
}

// Finds the columns again whose squares were more than T holds, or which are not finite.
template <class T>
inline void widen_where_overflown(index rows, index cols, const T* x, index ldx, double* mean, double* m2) {
  vec<double> zeros = {};  // unless one of m2 is infinite or NaN
  for_wide_columns(cols, [&](index j, index n) { zeros += load_wide(m2 + j, n) - load_wide(m2 + j, n); });
  double lane[lanes<double>()], sum = 0;
  store(lane, zeros);
  for (const double l : lane) sum += l;
  if (sum == 0) return;
  for (index j = 0; j < cols; ++j)
    if (m2[j] - m2[j] != 0) wide_moments(rows, x + j, ldx, mean + j, m2 + j);
}

template <class T>
void moments(index rows, index cols, const T* x, index ldx, const T* next, double* mean,
             double* m2) noexcept {
  if (next) moments_as(rows, cols, x, ldx, NextTile<T>(next, rows, cols, ldx), mean, m2);
  else moments_as(rows, cols, x, ldx, Nothing{}, mean, m2);
  widen_where_overflown(rows, cols, x, ldx, mean, m2);
}

template <class T>
void moments_merge(index cols, index n_a, double* mean, double* m2, index n_b, const double* mean_b,
                   const double* m2_b) noexcept {
  const double total = double(n_a) + double(n_b);
  const double share = double(n_b) / total, weight = double(n_a) * share;
  for_wide_columns(cols, [&](index j, index n) {
    const vec<double> mean_a = load_wide(mean + j, n), delta = load_wide(mean_b + j, n) - mean_a;
    const vec<double> both = load_wide(m2 + j, n) + load_wide(m2_b + j, n);
    store_wide(mean + j, fma(delta, set1(share), mean_a), n);
    store_wide(m2 + j, fma(delta * delta, set1(weight), both), n);
  });
}

template <class T>
void bn_coefficients(index cols, index count, const double* mean, const double* m2, double eps,
                     const T* gamma, const T* beta, T* m, T* shift, T* rstd, T* a, T* c) noexcept {
  const double rows = double(count);
  for_wide_columns(cols, [&](index j, index n) {
    const vec<double> mu = load_wide(mean + j, n), variance = load_wide(m2 + j, n) / rows;
    const vec<double> r = 1.0 / sqrt(variance + eps);
    const vec<double> scale = gamma ? load_wide(gamma + j, n) * r : r;
    store_wide(m + j, mu, n);
    const vec<double> rest = mu - load_wide(m + j, n);
    store_wide(shift + j, rest, n);
    store_wide(rstd + j, r, n);
    store_wide(a + j, scale, n);
    const vec<double> offset = beta ? load_wide(beta + j, n) : vec<double>{};
    store_wide(c + j, fma(-rest, scale, offset), n);
  });
}

template <class T>
void bn_inference_coefficients(index cols, const T* running_mean, const T* running_var, double eps,
                               const T* gamma, const T* beta, T* m, T* a, T* c) noexcept {
  for_wide_columns(cols, [&](index j, index n) {
    const vec<double> r = 1.0 / sqrt(load_wide(running_var + j, n) + eps);
    store_wide(m + j, load_wide(running_mean + j, n), n);
    store_wide(a + j, gamma ? load_wide(gamma + j, n) * r : r, n);
    store_wide(c + j, beta ? load_wide(beta + j, n) : vec<double>{}, n);
  });
}

template <class T>
void bn_update_running(index cols, index count, const double* mean, const double* m2, double momentum,
                       T* running_mean, T* running_var) noexcept {
  const double keep = 1.0 - momentum, unbiased = double(count - 1);
  for_wide_columns(cols, [&](index j, index n) {
    const vec<double> variance = load_wide(m2 + j, n) / unbiased;
    store_wide(running_mean + j,
               fma(load_wide(mean + j, n), set1(momentum), load_wide(running_mean + j, n) * keep), n);
    store_wide(running_var + j, fma(variance, set1(momentum), load_wide(running_var + j, n) * keep), n);
  });
}

// relu lets NaN through, and its derivative at 0 is 0: both follow from asking v <= 0.
template <class V> inline V where_positive(V v, V value) { return v <= V{} ? V{} : value; }

template <class T, bool Relu, bool Residual>
inline void bn_apply_as(index rows, index cols, const T* x, index ldx, const T* m, const T* a, const T* c,
                        const T* residual, index ldr, T* y, index ldy) {
  for_column_groups<T, kApplyVectors>(cols, [&](auto group) {
    constexpr int G = decltype(group)::vectors;
    vec<T> mv[G], av[G], cv[G];
    for (int v = 0; v < G; ++v) {
      mv[v] = group.read(m, v);
      av[v] = group.read(a, v);
      cv[v] = group.read(c, v);
    }
    for (index r = 0; r < rows; ++r) {
      for (int v = 0; v < G; ++v) {
        vec<T> out = fma(group.read(x + r * ldx, v) - mv[v], av[v], cv[v]);
        if constexpr (Relu) out = where_positive(out, out);
        if constexpr (Residual) out = out + group.read(residual + r * ldr, v);
        group.write(y + r * ldy, v, out);
      }
    }
  });
}

template <class T>
void bn_apply(index rows, index cols, const T* x, index ldx, const T* m, const T* a, const T* c, bool relu,
              const T* residual, index ldr, T* y, index ldy) noexcept {
  if (relu && residual) bn_apply_as<T, true, true>(rows, cols, x, ldx, m, a, c, residual, ldr, y, ldy);
  else if (relu) bn_apply_as<T, true, false>(rows, cols, x, ldx, m, a, c, residual, ldr, y, ldy);
  else if (residual) bn_apply_as<T, false, true>(rows, cols, x, ldx, m, a, c, residual, ldr, y, ldy);
  else bn_apply_as<T, false, false>(rows, cols, x, ldx, m, a, c, residual, ldr, y, ldy);
}

template <class T, bool Relu, bool Distances, class Next>
inline void bn_backward_sums_as(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                                const T* m, const T* a, const T* c, Next next_dy, Next next_x, double* sum_dy,
                                double* sum_dyx, double* sum_x) {
  for_column_groups<T, kSumVectors>(cols, [=, &next_dy, &next_x](auto group) {
    constexpr int G = decltype(group)::vectors;
    Next ahead_dy = next_dy, ahead_x = next_x;  // copies stay in registers
    vec<T> mv[G], av[G], cv[G];
    Sums<T> sum[G], products[G], distances[G];
    for (int v = 0; v < G; ++v) {
      mv[v] = group.read(m, v);
      if constexpr (Relu) av[v] = group.read(a, v);
      if constexpr (Relu) cv[v] = group.read(c, v);
    }
    for_rows(rows, [&](index r, auto partial) {
      constexpr int p = decltype(partial)::value;
      for (int v = 0; v < G; ++v) {
        const vec<T> d = group.read(x + r * ldx, v) - mv[v];
        vec<T> g = group.read(dy + r * lddy, v);
        if constexpr (Relu) g = where_positive(fma(d, av[v], cv[v]), g);
        vec<T>& product = products[v].template at<p>();
        sum[v].template at<p>() += g;
        product = fma(g, d, product);
        if constexpr (Distances) distances[v].template at<p>() += d;
      }
      if constexpr (p == kBlockPartials - 1) {
        ahead_dy.template fetch_some<G, 1>();
        ahead_x.template fetch_some<G, 1>();
      }
    });
#pragma GCC unroll 4  // else the sums stay in memory
    for (int v = 0; v < G; ++v) {
      write_wide<T>(group, v, sum[v].total(), sum_dy);
      write_wide<T>(group, v, products[v].total(), sum_dyx);
      if constexpr (Distances) write_wide<T>(group, v, distances[v].total(), sum_x);
    }
    next_dy = ahead_dy;
    next_x = ahead_x;
  });
}

template <class T>
void bn_backward_sums(index rows, index cols, const T* dy, index lddy, const T* x, index ldx, const T* m,
                      const T* a, const T* c, bool relu, double* sum_dy, double* sum_dyx) noexcept {
  const Nothing no;
  if (relu) {
    bn_backward_sums_as<T, true, false>(rows, cols, dy, lddy, x, ldx, m, a, c, no, no, sum_dy, sum_dyx,
                                        nullptr);
  } else {
    bn_backward_sums_as<T, false, false>(rows, cols, dy, lddy, x, ldx, m, a, c, no, no, sum_dy, sum_dyx,
                                         nullptr);
  }
}

template <class T>
void bn_backward_sums_and_shift(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                                const T* m, const T* next_dy, const T* next_x, double* sum_dy,
                                double* sum_dyx, double* sum_x) noexcept {
  if (next_x) {
    bn_backward_sums_as<T, false, true>(rows, cols, dy, lddy, x, ldx, m, nullptr, nullptr,
                                        NextTile<T>(next_dy, rows, cols, lddy),
                                        NextTile<T>(next_x, rows, cols, ldx), sum_dy, sum_dyx, sum_x);
  } else {
    bn_backward_sums_as<T, false, true>(rows, cols, dy, lddy, x, ldx, m, nullptr, nullptr, Nothing{},
                                        Nothing{}, sum_dy, sum_dyx, sum_x);
  }
}

// With s = mean - m and x̂ = (x - m - s)*rstd,
// dx = gamma*rstd*(g - Σg/n - x̂*Σ(g*x̂)/n) = c1*(g + c2*(x - m) + c3).
// With c1 multiplied out c2 would have the square of rstd, which is below the range of floats long before dx is.
template <class T>
void bn_backward_coefficients(index cols, index count, const double* sum_dy, const double* sum_dyx,
                              const T* shift, const T* rstd, const T* gamma, T* dgamma, T* dbeta, T* c1,
                              T* c2, T* c3) noexcept {
  const double inverse = 1.0 / double(count);
  for_wide_columns(cols, [&](index j, index n) {
    const vec<double> s = load_wide(shift + j, n), r = load_wide(rstd + j, n);
    const vec<double> sum = load_wide(sum_dy + j, n);
    const vec<double> slope = r * fma(-s, sum, load_wide(sum_dyx + j, n));
    const vec<double> scale = gamma ? load_wide(gamma + j, n) * r : r;
    const vec<double> linear = -r * (slope * inverse);
    store_wide(dgamma + j, slope, n);
    store_wide(dbeta + j, sum, n);
    store_wide(c1 + j, scale, n);
    store_wide(c2 + j, linear, n);
    store_wide(c3 + j, -fma(linear, s, sum * inverse), n);
  });
}

template <class T, bool Relu>
inline void bn_backward_apply_as(index rows, index cols, const T* dy, index lddy, const T* x, index ldx,
                                 const T* m, const T* a, const T* c, const T* c1, const T* c2, const T* c3,
                                 T* dx, index lddx) {
  for_column_groups<T, kApplyVectors>(cols, [&](auto group) {
    constexpr int G = decltype(group)::vectors;
    vec<T> mv[G], av[G], cv[G], c1v[G], c2v[G], c3v[G];
    for (int v = 0; v < G; ++v) {
      mv[v] = group.read(m, v);
      if constexpr (Relu) av[v] = group.read(a, v);
      if constexpr (Relu) cv[v] = group.read(c, v);
      c1v[v] = group.read(c1, v);
      c2v[v] = group.read(c2, v);
      c3v[v] = group.read(c3, v);
    }
    for (index r = 0; r < rows; ++r) {
      for (int v = 0; v < G; ++v) {
        const vec<T> d = group.read(x + r * ldx, v) - mv[v];
        vec<T> g = group.read(dy + r * lddy, v);
        if constexpr (Relu) g = where_positive(fma(d, av[v], cv[v]), g);
        group.write(dx + r * lddx, v, c1v[v] * (g + fma(c2v[v], d, c3v[v])));
      }
    }
  });
}

template <class T>
void bn_backward_apply(index rows, index cols, const T* dy, index lddy, const T* x, index ldx, const T* m,
                       const T* a, const T* c, bool relu, const T* c1, const T* c2, const T* c3, T* dx,
                       index lddx) noexcept {
  if (relu) bn_backward_apply_as<T, true>(rows, cols, dy, lddy, x, ldx, m, a, c, c1, c2, c3, dx, lddx);
  else bn_backward_apply_as<T, false>(rows, cols, dy, lddy, x, ldx, m, a, c, c1, c2, c3, dx, lddx);
}

template <class T> constexpr void add_batchnorm(Kernels<T>& k) {
  k.moments = &moments<T>;
  k.moments_merge = &moments_merge<T>;
  k.bn_coefficients = &bn_coefficients<T>;
  k.bn_inference_coefficients = &bn_inference_coefficients<T>;
  k.bn_update_running = &bn_update_running<T>;
  k.bn_apply = &bn_apply<T>;
  k.bn_backward_sums = &bn_backward_sums<T>;
  k.bn_backward_sums_and_shift = &bn_backward_sums_and_shift<T>;
  k.bn_backward_coefficients = &bn_backward_coefficients<T>;
  k.bn_backward_apply = &bn_backward_apply<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
