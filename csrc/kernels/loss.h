// loss.h — losses per row and their gradients, meaning as in torch. Averaging over rows is the
// caller's: row_loss comes unscaled, row_weight reaches the gradient alone. Shapes: table.h.
//
// Cross-entropy with target coefficients t (one per class): loss = log(Σ e^(x - max))·Σt -
// Σ t·(x - max), a sum of terms of one sign, and dx = Σt·softmax(x) - t. With class weights w and
// smoothing ε over C classes t = w·((1 - ε)·target + ε/C) (Szegedy et al. 2016).
#pragma once
#include "softmax.h"

namespace gv::kernels::GV_ISA {
namespace {

template <class T> inline T weight_of(const T* row_weight, index r) {
  return row_weight ? row_weight[r] : T(1);
}

template <class T>
void cross_entropy(index rows, index classes, const T* x, index ldx, const std::int64_t* labels,
                   const T* class_weight, double label_smoothing, const T* row_weight, double* row_loss,
                   T* dx, index lddx) noexcept {
  const auto weight = [=](index j, auto n) {
    return class_weight ? load_n(class_weight + j, n) : set1<T>(1);
  };
  // What every class gets of its weight, the label's own share apart.
  const double spread = classes ? label_smoothing / double(classes) : 0;
  const double spread_total = spread == 0 ? 0 : spread * row_sum<T>(classes, weight);
  for (index r = 0; r < rows; ++r, x += ldx, dx += lddx) {
    const index label = index(labels[r]);
    const T largest = row_max<T>(classes, x);
    const double own = (1 - label_smoothing) * (class_weight ? double(class_weight[label]) : 1.0);
    const double total_t = own + spread_total;
    double linear = own * (double(x[label]) - double(largest));
    if (spread != 0) {
      linear += spread * row_sum<T>(classes, [=](index j, auto n) {
                  return weight(j, n) * (load_n(x + j, n) - largest);
                });
    }
    const double total = exp_row<T>(classes, x, largest, dx);
    row_loss[r] = total_t * log_of(total) - linear;
    const double factor = double(weight_of(row_weight, r));
    const T inverse = T(1 / total), scale = T(factor * total_t), own_scale = T(factor * own);
    if (spread == 0) {
      const T at_label = (dx[label] * inverse - T(1)) * scale;
      for_row<T>(classes, [=](index j, auto n) { store_n(dx + j, load_n(dx + j, n) * inverse * scale, n); });
      dx[label] = at_label;
    } else {
      const T spread_scale = T(factor * spread);
      for_row<T>(classes, [=](index j, auto n) {
        store_n(dx + j, load_n(dx + j, n) * inverse * scale - weight(j, n) * spread_scale, n);
      });
      dx[label] = dx[label] - own_scale;
    }
  }
}

template <class T>
void cross_entropy_soft(index rows, index classes, const T* x, index ldx, const T* target, index ldt,
                        const T* class_weight, double label_smoothing, const T* row_weight, double* row_loss,
                        T* dx, index lddx) noexcept {
  const T keep = T(1 - label_smoothing), spread = T(classes ? label_smoothing / double(classes) : 0);
  for (index r = 0; r < rows; ++r, x += ldx, target += ldt, dx += lddx) {
    const auto coefficient = [=](index j, auto n) {
      const vec<T> t = load_n(target + j, n) * keep + spread;
      return class_weight ? t * load_n(class_weight + j, n) : t;
    };
    const T largest = row_max<T>(classes, x);
    const double total_t = row_sum<T>(classes, coefficient);
    const double linear = row_sum<T>(
        classes, [=](index j, auto n) { return coefficient(j, n) * (load_n(x + j, n) - largest); });
    const double total = exp_row<T>(classes, x, largest, dx);
    row_loss[r] = total_t * log_of(total) - linear;
    const T factor = weight_of(row_weight, r), inverse = T(1 / total), sum_t = T(total_t);
    for_row<T>(classes, [=](index j, auto n) {
      store_n(dx + j, (load_n(dx + j, n) * inverse * sum_t - coefficient(j, n)) * factor, n);
    });
  }
}

// Rows of a loss that is a sum over elements: value(x, t) and slope(x, t) of the vectors at column
// j. The gradient is stored after the loss of the same elements is known, so dx may be x.
template <class T, class Element>
inline void elementwise_loss(index rows, index cols, const T* x, index ldx, const T* target, index ldt,
                             const T* row_weight, double* row_loss, T* dx, index lddx, Element&& element) {
  for (index r = 0; r < rows; ++r, x += ldx, target += ldt, dx += lddx) {
    const T factor = weight_of(row_weight, r);
    row_loss[r] = row_sum<T>(cols, [=](index j, auto n) {
      vec<T> slope;
      const vec<T> value = element(load_n(x + j, n), load_n(target + j, n), j, n, slope);
      store_n(dx + j, slope * factor, n);
      return value;
    });
  }
}

template <class T>
void mse(index rows, index cols, const T* x, index ldx, const T* target, index ldt, const T* row_weight,
         double* row_loss, T* dx, index lddx) noexcept {
  elementwise_loss<T>(rows, cols, x, ldx, target, ldt, row_weight, row_loss, dx, lddx,
                      [](vec<T> a, vec<T> t, index, auto, vec<T>& slope) {
                        const vec<T> d = a - t;
                        slope = d + d;
                        return d * d;
                      });
}

template <class T>
void l1(index rows, index cols, const T* x, index ldx, const T* target, index ldt, const T* row_weight,
        double* row_loss, T* dx, index lddx) noexcept {
  elementwise_loss<T>(rows, cols, x, ldx, target, ldt, row_weight, row_loss, dx, lddx,
                      [](vec<T> a, vec<T> t, index, auto, vec<T>& slope) {
                        const vec<T> d = a - t;  // 0 and NaN are their own slope
                        slope = d > T(0) ? set1<T>(1) : d < T(0) ? set1<T>(-1) : d;
                        return abs<T>(d);
                      });
}

// d²/2 up to delta, then delta·(|d| - delta/2) (Huber 1964).
template <class T>
void huber(index rows, index cols, const T* x, index ldx, const T* target, index ldt, double delta,
           const T* row_weight, double* row_loss, T* dx, index lddx) noexcept {
  const T bend = T(delta), half = T(delta) * T(0.5);
  elementwise_loss<T>(rows, cols, x, ldx, target, ldt, row_weight, row_loss, dx, lddx,
                      [=](vec<T> a, vec<T> t, index, auto, vec<T>& slope) {
                        const vec<T> d = a - t, size = abs<T>(d);
                        slope = size > bend ? copy_sign<T>(set1<T>(bend), d) : d;
                        return size > bend ? (size - half) * bend : d * d * T(0.5);
                      });
}

// p·t·log(1 + e^-x) + (1 - t)·log(1 + e^x): both terms stay accurate, none cancels the other.
template <class T>
void bce(index rows, index cols, const T* x, index ldx, const T* target, index ldt, const T* pos_weight,
         const T* row_weight, double* row_loss, T* dx, index lddx) noexcept {
  elementwise_loss<T>(rows, cols, x, ldx, target, ldt, row_weight, row_loss, dx, lddx,
                      [=](vec<T> a, vec<T> t, index j, auto n, vec<T>& slope) {
                        const vec<T> positive = pos_weight ? t * load_n(pos_weight + j, n) : t;
                        const vec<T> negative = T(1) - t;
                        const Logistic<T> s = logistic<T>(a);
                        slope = negative * s.above - positive * s.below;
                        return positive * softplus_of<T>(-a, s.e) + negative * softplus_of<T>(a, s.e);
                      });
}

template <class T> constexpr void add_loss(Kernels<T>& k) {
  k.cross_entropy = &cross_entropy<T>;
  k.cross_entropy_soft = &cross_entropy_soft<T>;
  k.mse = &mse<T>;
  k.l1 = &l1<T>;
  k.huber = &huber<T>;
  k.bce = &bce<T>;
}

}  // namespace
}  // namespace gv::kernels::GV_ISA
