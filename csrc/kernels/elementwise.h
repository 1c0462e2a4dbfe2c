// elementwise.h — activations and their derivatives, sums and products of panels, column sums.
// Shapes, aliasing and contracts: table.h. What runs over several operations at once is fused
// elsewhere; the arithmetic of one element is here. NaN goes through every activation; at -infinity
// x * sigmoid(x) and x * Phi(x) are NaN too, as in torch. Measured for
// |x| <= 30: values within 1.2 epsilon of max(1, |x|), slopes within 1.3 epsilon, in both types.
// ELU: Clevert et al. 2016; SELU: Klambauer et al. 2017; GELU: Hendrycks & Gimpel 2016;
// SiLU: Elfwing et al. 2018; softplus: log(1 + e^(beta x))/beta, beta > 0.
#pragma once
#include "math.h"
#include "rowsum.h"
#include "table.h"

namespace gv::kernels::GV_ISA {
namespace {

// f(vec) for every element of a panel; y may be x. Panels without gaps are one long row.
template <class T, class F>
inline void for_panel(index rows, index cols, const T* x, index ldx, T* y, index ldy, F&& f) {
  if (ldx == cols && ldy == cols) {
    cols *= rows;
    rows = rows > 0;
  }
  for (index r = 0; r < rows; ++r, x += ldx, y += ldy)
    for_row<T>(cols, [&](index j, auto n) { store_n(y + j, f(load_n(x + j, n)), n); });
}

// The same for f(vec, vec) and two panels; y may be either.
template <class T, class F>
inline void for_panels(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy,
                       F&& f) {
  if (ldx == cols && ldz == cols && ldy == cols) {
    cols *= rows;
    rows = rows > 0;
  }
  for (index r = 0; r < rows; ++r, x += ldx, z += ldz, y += ldy)
    for_row<T>(cols, [&](index j, auto n) { store_n(y + j, f(load_n(x + j, n), load_n(z + j, n)), n); });
}

// ---- one element of each activation: value(x) and slope(dy, x) = dy * f'(x) --------------------

template <class T> struct Relu {
  vec<T> value(vec<T> x) const { return x <= T(0) ? vec<T>{} : x; }
  vec<T> slope(vec<T> dy, vec<T> x) const { return x <= T(0) ? vec<T>{} : dy; }
};

template <class T> struct LeakyRelu {
  T alpha;
  vec<T> value(vec<T> x) const { return x > T(0) ? x : x * alpha; }
  vec<T> slope(vec<T> dy, vec<T> x) const { return x > T(0) ? dy : dy * alpha; }
};

// scale * x above 0, low * (e^x - 1) below.
template <class T> struct Elu {
  T scale, low;
  vec<T> value(vec<T> x) const { return x > T(0) ? x * scale : expm1_nonpositive<T>(x) * low; }
  vec<T> slope(vec<T> dy, vec<T> x) const { return x > T(0) ? dy * scale : dy * (exp<T>(x) * low); }
};

// x * Phi(x); slope Phi(x) + x * phi(x).
template <class T> struct Gelu {
  vec<T> value(vec<T> x) const { return x * normal_distribution<T>(x).cumulative; }
  vec<T> slope(vec<T> dy, vec<T> x) const {
    const Normal<T> n = normal_distribution<T>(x);
    return dy * fma(x * T(0.3989422804014326779), n.kernel, n.cumulative);
  }
};

// x * (1 + tanh u)/2 = x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3): no cancellation below 0.
template <class T> struct GeluTanh {
  static constexpr T k1 = T(1.5957691216057307117), k3 = T(1.5957691216057307117 * 0.044715);
  vec<T> value(vec<T> x) const { return x * sigmoid<T>(x * fma(x * x, set1<T>(k3), set1<T>(k1))); }
  vec<T> slope(vec<T> dy, vec<T> x) const {
    // Beyond 32 the slope is 0 or 1 in both types; x^2 must not overflow there.
    vec<T> a = x > T(32) ? set1<T>(32) : x;
    a = a < T(-32) ? set1<T>(-32) : a;
    const vec<T> square = a * a;
    const Logistic<T> s = logistic<T>(a * fma(square, set1<T>(k3), set1<T>(k1)));
    const vec<T> du = fma(square, set1<T>(3 * k3), set1<T>(k1));
    return dy * fma(a * s.below * du, s.above, s.above);
  }
};

template <class T> struct Silu {
  vec<T> value(vec<T> x) const { return x * sigmoid<T>(x); }
  vec<T> slope(vec<T> dy, vec<T> x) const {
    const Logistic<T> s = logistic<T>(x);
    return dy * fma(x * s.below, s.above, s.above);
  }
};

template <class T> struct Softplus {
  T beta, inverse;
  vec<T> value(vec<T> x) const {
    const vec<T> e = exp<T>(-abs<T>(x * beta));
    return fma(log1p_unit<T>(e), set1<T>(inverse), x > T(0) ? x : vec<T>{});
  }
  vec<T> slope(vec<T> dy, vec<T> x) const { return dy * sigmoid<T>(x * beta); }
};

// Slope 1 - tanh^2 = 4w/(1 + w)^2 with w = e^(-2|x|), accurate in the tails.
template <class T> struct Tanh {
  vec<T> value(vec<T> x) const { return tanh<T>(x); }
  vec<T> slope(vec<T> dy, vec<T> x) const {
    const Logistic<T> s = logistic<T>(x * T(2));
    return dy * (s.above * s.below * T(4));
  }
};

template <class T> struct Sigmoid {
  vec<T> value(vec<T> x) const { return sigmoid<T>(x); }
  vec<T> slope(vec<T> dy, vec<T> x) const {
    const Logistic<T> s = logistic<T>(x);
    return dy * (s.above * s.below);
  }
};

template <class T> struct Identity {
  vec<T> value(vec<T> x) const { return x; }
  vec<T> slope(vec<T> dy, vec<T>) const { return dy; }
};

constexpr double kSeluScale = 1.0507009873554804934, kSeluAlpha = 1.6732632423543772848;

// run(f) with the activation that kind names.
template <class T, class Run>
inline void with_activation(Activation kind, ActivationParams params, Run&& run) {
  const T alpha = T(params.alpha);
  switch (kind) {
    case Activation::identity: return run(Identity<T>{});
    case Activation::relu: return run(Relu<T>{});
    case Activation::leaky_relu: return run(LeakyRelu<T>{alpha});
    case Activation::elu: return run(Elu<T>{T(1), alpha});
    case Activation::selu: return run(Elu<T>{T(kSeluScale), T(kSeluScale * kSeluAlpha)});
    case Activation::gelu: return run(Gelu<T>{});
    case Activation::gelu_tanh: return run(GeluTanh<T>{});
    case Activation::silu: return run(Silu<T>{});
    case Activation::softplus: return run(Softplus<T>{alpha, T(1 / params.alpha)});
    case Activation::tanh: return run(Tanh<T>{});
    case Activation::sigmoid: return run(Sigmoid<T>{});
  }
}

// run(f) with one of the activations that memory keeps waiting; the others compute for longer than it takes.
template <class T, class Run> inline void with_cheap(Activation kind, ActivationParams params, Run&& run) {
  if (kind == Activation::relu) run(Relu<T>{});
  else run(LeakyRelu<T>{T(params.alpha)});
}

template <class T>
void activation_past(Activation kind, ActivationParams params, index n, const T* x, T* y) noexcept {
  with_cheap<T>(kind, params, [&](auto f) {
    for_row_aligned<T, true>(n, y, [=](index i, auto k) { return f.value(load_n(x + i, k)); });
  });
}

template <class T>
void activation_backward_past(Activation kind, ActivationParams params, index n, const T* dy, const T* x,
                              T* dx) noexcept {
  with_cheap<T>(kind, params, [&](auto f) {
    for_row_aligned<T, true>(n, dx,
                             [=](index i, auto k) { return f.slope(load_n(dy + i, k), load_n(x + i, k)); });
  });
}

template <class T>
void activation(Activation kind, ActivationParams params, index rows, index cols, const T* x, index ldx, T* y,
                index ldy) noexcept {
  with_activation<T>(kind, params, [&](auto f) {
    for_panel<T>(rows, cols, x, ldx, y, ldy, [=](vec<T> v) { return f.value(v); });
  });
}

template <class T>
void activation_backward(Activation kind, ActivationParams params, index rows, index cols, const T* dy,
                         index lddy, const T* x, index ldx, T* dx, index lddx) noexcept {
  with_activation<T>(kind, params, [&](auto f) {
    for_panels<T>(rows, cols, dy, lddy, x, ldx, dx, lddx, [=](vec<T> d, vec<T> v) { return f.slope(d, v); });
  });
}

// ---- panels ------------------------------------------------------------------------------------

template <class T>
void add(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy) noexcept {
  for_panels<T>(rows, cols, x, ldx, z, ldz, y, ldy, [](vec<T> a, vec<T> b) { return a + b; });
}

template <class T>
void sub(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy) noexcept {
  for_panels<T>(rows, cols, x, ldx, z, ldz, y, ldy, [](vec<T> a, vec<T> b) { return a - b; });
}

template <class T>
void mul(index rows, index cols, const T* x, index ldx, const T* z, index ldz, T* y, index ldy) noexcept {
  for_panels<T>(rows, cols, x, ldx, z, ldz, y, ldy, [](vec<T> a, vec<T> b) { return a * b; });
}

template <class T>
void affine(index rows, index cols, const T* x, index ldx, T scale, T shift, T* y, index ldy) noexcept {
  for_panel<T>(rows, cols, x, ldx, y, ldy, [=](vec<T> a) { return a * scale + shift; });
}

// A row vector is a panel whose rows lie on top of each other.
template <class T>
void add_row(index rows, index cols, const T* x, index ldx, const T* v, T* y, index ldy) noexcept {
  for (index r = 0; r < rows; ++r) add<T>(1, cols, x + r * ldx, cols, v, cols, y + r * ldy, cols);
}

template <class T>
void mul_row(index rows, index cols, const T* x, index ldx, const T* v, T* y, index ldy) noexcept {
  for (index r = 0; r < rows; ++r) mul<T>(1, cols, x + r * ldx, cols, v, cols, y + r * ldy, cols);
}

// ---- columns -----------------------------------------------------------------------------------

// out[j] = Σ_r term(r, j, n): row r goes to partial r mod 4, then (0 + 1) + (2 + 3).
template <class T, class Term>
inline void column_totals(index rows, index cols, double* out, Term&& term) {
  constexpr index L = lanes<T>();
  for_row<T>(cols, [&](index j, auto n) {
    vec<T> s0{}, s1{}, s2{}, s3{};
    index r = 0;
    for (; r + 4 <= rows; r += 4) {
      s0 += term(r, j, n);
      s1 += term(r + 1, j, n);
      s2 += term(r + 2, j, n);
      s3 += term(r + 3, j, n);
    }
    if (r < rows) s0 += term(r, j, n);
    if (r + 1 < rows) s1 += term(r + 1, j, n);
    if (r + 2 < rows) s2 += term(r + 2, j, n);
    alignas(64) T total[L];
    store(total, (s0 + s1) + (s2 + s3));
    const index count = cols - j < L ? cols - j : L;
    for (index i = 0; i < count; ++i) out[j + i] = double(total[i]);
  });
}

template <class T>
void column_sums(index rows, index cols, const T* x, index ldx, double* sum) noexcept {
  column_totals<T>(rows, cols, sum, [&](index r, index j, auto n) { return load_n(x + r * ldx + j, n); });
}

template <class T>
void column_dots(index rows, index cols, const T* x, index ldx, const T* z, index ldz, double* sum) noexcept {
  column_totals<T>(rows, cols, sum, [&](index r, index j, auto n) {
    return load_n(x + r * ldx + j, n) * load_n(z + r * ldz + j, n);
  });
}

template <class T> constexpr void add_elementwise(Kernels<T>& k) {
  k.activation = &activation<T>;
  k.activation_backward = &activation_backward<T>;
  k.activation_past = &activation_past<T>;
  k.activation_backward_past = &activation_backward_past<T>;
  k.add = &add<T>;
  k.sub = &sub<T>;
  k.mul = &mul<T>;
  k.affine = &affine<T>;
  k.add_row = &add_row<T>;
  k.mul_row = &mul_row<T>;
  k.column_sums = &column_sums<T>;
  k.column_dots = &column_dots<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
