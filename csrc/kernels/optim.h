// optim.h — the rules of SGD and Adam on flat arrays, scaling, accumulation, and the sums behind a
// gradient's norm. Not here: schedules, parameter groups, clipping decisions.
// SGD as torch.optim.SGD; Adam of Kingma & Ba 2015 (arXiv 1412.6980), decoupled decay of Loshchilov
// & Hutter 2019 (arXiv 1711.05101), in PyTorch's order of operations. Everything works in place
// on arrays that do not overlap; signatures: table.h.
#pragma once
#include "rowsum.h"
#include "table.h"
#include "vec.h"

namespace gv::kernels::GV_ISA {
namespace {

// The one place where the rule of SGD is written, on vectors.
template <class T> struct Sgd {
  vec<T> minus_lr, momentum, undamped, weight_decay;
  bool decay, first, nesterov;
  explicit Sgd(const SgdParams& s)
      : minus_lr(set1<T>(T(-s.lr))),
        momentum(set1<T>(T(s.momentum))),
        undamped(set1<T>(T(1.0 - s.dampening))),
        weight_decay(set1<T>(T(s.weight_decay))),
        decay(s.weight_decay != 0.0),
        first(s.first),
        nesterov(s.nesterov) {}
  vec<T> gradient(vec<T> p, vec<T> g) const { return decay ? fma(weight_decay, p, g) : g; }
  vec<T> velocity(vec<T> v, vec<T> g) const { return fma(momentum, v, undamped * g); }
  vec<T> direction(vec<T> v, vec<T> g) const { return nesterov ? fma(momentum, v, g) : v; }
  vec<T> step(vec<T> p, vec<T> d) const { return fma(minus_lr, d, p); }
};

template <class T> void sgd(index n, T* p, const T* g, T* v, const SgdParams& params) noexcept {
  const Sgd<T> rule(params);
  if (!v || params.momentum == 0.0) {
    for_row<T>(n, [&](index i, auto k) {
      const vec<T> old = load_n(p + i, k);
      store_n(p + i, rule.step(old, rule.gradient(old, load_n(g + i, k))), k);
    });
    return;
  }
  for_row<T>(n, [&](index i, auto k) {
    const vec<T> old = load_n(p + i, k), gradient = rule.gradient(old, load_n(g + i, k));
    const vec<T> velocity = rule.first ? gradient : rule.velocity(load_n(v + i, k), gradient);
    store_n(v + i, velocity, k);
    store_n(p + i, rule.step(old, rule.direction(velocity, gradient)), k);
  });
}

template <class T>
void adam(index n, T* p, const T* g, T* exp_avg, T* exp_avg_sq, const AdamParams& s) noexcept {
  const bool decay = s.weight_decay != 0.0;
  const vec<T> shrink = set1<T>(T(1.0 - s.lr * s.weight_decay)), coupled = set1<T>(T(s.weight_decay));
  // lerp from the nearer end, so that beta1 = 0 gives g itself.
  const double weight = 1.0 - s.beta1;
  const bool near_old = weight < 0.5;
  const vec<T> lerp = set1<T>(T(near_old ? weight : weight - 1.0));
  const vec<T> beta2 = set1<T>(T(s.beta2)), fresh = set1<T>(T(1.0 - s.beta2));
  const vec<T> correction = set1<T>(T(s.correction2)), eps = set1<T>(T(s.eps));
  const vec<T> minus_step = set1<T>(T(-(s.lr / s.correction1)));
  for_row<T>(n, [&](index i, auto k) {
    vec<T> param = load_n(p + i, k), gradient = load_n(g + i, k);
    if (decay && s.decoupled) param = param * shrink;
    if (decay && !s.decoupled) gradient = fma(coupled, param, gradient);
    const vec<T> old = load_n(exp_avg + i, k);
    const vec<T> m = fma(lerp, gradient - old, near_old ? old : gradient);
    const vec<T> v = fma(fresh * gradient, gradient, beta2 * load_n(exp_avg_sq + i, k));
    const vec<T> denominator = sqrt(v) / correction + eps;
    store_n(exp_avg + i, m, k);
    store_n(exp_avg_sq + i, v, k);
    store_n(p + i, fma(minus_step, m / denominator, param), k);
  });
}

template <class T> void scale(index n, T* x, T factor) noexcept {
  const vec<T> f = set1<T>(factor);
  for_row<T>(n, [&](index i, auto k) { store_n(x + i, load_n(x + i, k) * f, k); });
}

template <class T> void accumulate(index n, T* x, const T* y) noexcept {
  for_row<T>(n, [&](index i, auto k) { store_n(x + i, load_n(x + i, k) + load_n(y + i, k), k); });
}

template <class T> double sum_of_squares(index n, const T* x, T scale) noexcept {
  const vec<T> s = set1<T>(scale);
  return row_sum<T>(n, [&](index i, auto k) {
    const vec<T> v = s * load_n(x + i, k);
    return v * v;
  });
}

template <class T> constexpr void add_optim(Kernels<T>& k) {
  k.sgd = &sgd<T>;
  k.adam = &adam<T>;
  k.scale = &scale<T>;
  k.accumulate = &accumulate<T>;
  k.sum_of_squares = &sum_of_squares<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
