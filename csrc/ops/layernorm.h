// layernorm.h — layer normalisation over the rows of a panel, and its gradient: dx is dealt by
// rows, dgamma and dbeta by columns (blocks of rows merged in ascending order, in double). The
// formulas are in kernels/layernorm.h. Ba, Kiros & Hinton 2016, arXiv 1607.06450.
#pragma once
#include "../kernels/table.h"
#include "deal.h"

namespace gv::ops {

template <class T> struct LayerNormForward {
  index rows, cols;
  const T* x;
  index ldx;
  const T *gamma, *beta;  // may be null: 1 and 0
  double eps;
  T* y;  // may be x
  index ldy;
  T *mean, *rstd;  // out, one for each row
};

template <class T> struct LayerNormBackward {
  index rows, cols;
  const T* dy;
  index lddy;
  const T* x;
  index ldx;
  const T *mean, *rstd;
  const T* gamma;  // may be null
  T* dx;
  index lddx;
  T *dgamma, *dbeta;  // out, overwritten
};

// Doubles of scratch that all workers of the backward share.
constexpr index layernorm_backward_scratch(index cols) { return 4 * cols; }

template <class T>
void run(const kernels::Kernels<T>& k, const LayerNormForward<T>& g, int worker, int workers) noexcept {
  const Range rows = share_of_rows(g.rows, worker, workers);
  k.layernorm(rows.size(), g.cols, g.x + rows.first * g.ldx, g.ldx, g.gamma, g.beta, g.eps,
              g.y + rows.first * g.ldy, g.ldy, g.mean + rows.first, g.rstd + rows.first);
}

template <class T>
void run(const kernels::Kernels<T>& k, const LayerNormBackward<T>& g, double* scratch, int worker,
         int workers) noexcept {
  const Range rows = share_of_rows(g.rows, worker, workers);
  k.layernorm_backward(rows.size(), g.cols, g.dy + rows.first * g.lddy, g.lddy, g.x + rows.first * g.ldx,
                       g.ldx, g.mean + rows.first, g.rstd + rows.first, g.gamma, g.dx + rows.first * g.lddx,
                       g.lddx);

  const Range cols = share(g.cols, 64 / index(sizeof(T)), worker, workers);
  const index n = cols.size(), j = cols.first;
  double *dgamma = scratch + 4 * j, *dbeta = dgamma + n, *block_dgamma = dbeta + n,
         *block_dbeta = block_dgamma + n;
  for (index i = 0; i < 2 * n; ++i) dgamma[i] = 0;
  for (index r = 0; r < g.rows && n > 0; r += kRowBlock) {
    const index some = g.rows - r < kRowBlock ? g.rows - r : kRowBlock;
    k.layernorm_param_sums(some, n, g.dy + r * g.lddy + j, g.lddy, g.x + r * g.ldx + j, g.ldx, g.mean + r,
                           g.rstd + r, block_dgamma, block_dbeta);
    for (index i = 0; i < 2 * n; ++i) dgamma[i] += block_dgamma[i];
  }
  for (index i = 0; i < n; ++i) g.dgamma[j + i] = T(dgamma[i]);
  for (index i = 0; i < n; ++i) g.dbeta[j + i] = T(dbeta[i]);
}

}  // namespace gv::ops
