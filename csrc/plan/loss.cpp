// loss.cpp — see loss.h.
#include "loss.h"

namespace gv::plan {

template <class T> void Loss<T>::run(const Context<T>& c, const Worker& w) const noexcept {
  const Range rows = share(t_.multiplicity * c.batch, 8, w.id, w.team);
  const index n = rows.size(), ld = t_.columns, r = rows.first;
  if (n <= 0) return;
  const auto& k = *c.kernels;
  const T *x = prediction_.get() + r * ld, *target = target_ ? target_.get() + r * ld : nullptr;
  const T *weight = weight_.get(), *row_weight = row_weight_.get() + r;
  T* dx = gradient_.get() + r * ld;
  double* value = row_loss_.get() + r;
  switch (settings_.kind) {
    case LossKind::cross_entropy:
      if (labels_)
        return k.cross_entropy(n, ld, x, ld, labels_.get() + r, weight, settings_.label_smoothing, row_weight,
                               value, dx, ld);
      return k.cross_entropy_soft(n, ld, x, ld, target, ld, weight, settings_.label_smoothing, row_weight,
                                  value, dx, ld);
    case LossKind::mse: return k.mse(n, ld, x, ld, target, ld, row_weight, value, dx, ld);
    case LossKind::l1: return k.l1(n, ld, x, ld, target, ld, row_weight, value, dx, ld);
    case LossKind::huber:
      return k.huber(n, ld, x, ld, target, ld, settings_.delta, row_weight, value, dx, ld);
    case LossKind::bce: return k.bce(n, ld, x, ld, target, ld, weight, row_weight, value, dx, ld);
  }
}

double sum_of_rows(index n, const double* values) noexcept {
  double total = 0;
  for (index chunk = 0; chunk < n; chunk += kRowChunk) {
    double partial[kRowPartials] = {};
    const index last = n - chunk < kRowChunk ? n - chunk : kRowChunk;
    for (index i = 0; i < last; ++i) partial[i % kRowPartials] += values[chunk + i];
    for (index half = kRowPartials / 2; half > 0; half /= 2)
      for (index i = 0; i < half; ++i) partial[i] += partial[i + half];
    total += partial[0];
  }
  return total;
}

template class Loss<float>;
template class Loss<double>;

}  // namespace gv::plan
