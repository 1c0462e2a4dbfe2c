// loss.h — losses row by row with their gradients, dealt by rows; and the sum of what the rows
// lost. The formulas are in kernels/loss.h.
#pragma once
#include "../kernels/table.h"
#include "deal.h"

namespace gv::ops {

enum class LossKind : std::uint8_t { cross_entropy, cross_entropy_soft, mse, l1, huber, bce };

template <class T> struct Loss {
  LossKind kind;
  index rows, cols;
  const T* x;
  index ldx;
  const std::int64_t* labels;  // cross_entropy
  const T* target;             // all others
  index ldt;
  const T* weight;  // of classes, or pos_weight of bce; may be null
  double label_smoothing, delta;
  const T* row_weight;  // may be null: 1
  double* row_loss;     // out, one for each row
  T* dx;                // out; may be x
  index lddx;
};

template <class T>
void run(const kernels::Kernels<T>& k, const Loss<T>& g, int worker, int workers) noexcept {
  const Range rows = share_of_rows(g.rows, worker, workers);
  const index n = rows.size(), r = rows.first;
  const T *x = g.x + r * g.ldx, *target = g.target ? g.target + r * g.ldt : nullptr;
  const T* row_weight = g.row_weight ? g.row_weight + r : nullptr;
  double* row_loss = g.row_loss + r;
  T* dx = g.dx + r * g.lddx;
  switch (g.kind) {
    case LossKind::cross_entropy:
      return k.cross_entropy(n, g.cols, x, g.ldx, g.labels + r, g.weight, g.label_smoothing, row_weight,
                             row_loss, dx, g.lddx);
    case LossKind::cross_entropy_soft:
      return k.cross_entropy_soft(n, g.cols, x, g.ldx, target, g.ldt, g.weight, g.label_smoothing, row_weight,
                                  row_loss, dx, g.lddx);
    case LossKind::mse: return k.mse(n, g.cols, x, g.ldx, target, g.ldt, row_weight, row_loss, dx, g.lddx);
    case LossKind::l1: return k.l1(n, g.cols, x, g.ldx, target, g.ldt, row_weight, row_loss, dx, g.lddx);
    case LossKind::huber:
      return k.huber(n, g.cols, x, g.ldx, target, g.ldt, g.delta, row_weight, row_loss, dx, g.lddx);
    case LossKind::bce:
      return k.bce(n, g.cols, x, g.ldx, target, g.ldt, g.weight, row_weight, row_loss, dx, g.lddx);
  }
}

// Σ weight[r] * row_loss[r] (weight null: 1): row r to partial r mod 16, one tree, chunks in ascending order.
inline double sum_of_rows(index rows, const double* row_loss, const double* weight = nullptr) noexcept {
  double total = 0;
  for (index chunk = 0; chunk < rows; chunk += kRowChunk) {
    double partial[kRowPartials] = {};
    const index last = rows - chunk < kRowChunk ? rows - chunk : kRowChunk;
    for (index i = 0, r = chunk; i < last; ++i, ++r)
      partial[i % kRowPartials] += weight ? weight[r] * row_loss[r] : row_loss[r];
    for (index half = kRowPartials / 2; half > 0; half /= 2)
      for (index i = 0; i < half; ++i) partial[i] += partial[i + half];
    total += partial[0];
  }
  return total;
}

}  // namespace gv::ops
