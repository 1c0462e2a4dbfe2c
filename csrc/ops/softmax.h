// softmax.h — softmax and log-softmax over the rows of a panel, dealt by rows. The formulas are in
// kernels/softmax.h.
#pragma once
#include "../kernels/table.h"
#include "deal.h"

namespace gv::ops {

template <class T> struct Softmax {
  bool logarithm;
  index rows, cols;
  const T* x;
  index ldx;
  T* y;  // may be x
  index ldy;
};

template <class T>
void run(const kernels::Kernels<T>& k, const Softmax<T>& g, int worker, int workers) noexcept {
  const Range rows = share_of_rows(g.rows, worker, workers);
  const auto kernel = g.logarithm ? k.log_softmax : k.softmax;
  kernel(rows.size(), g.cols, g.x + rows.first * g.ldx, g.ldx, g.y + rows.first * g.ldy, g.ldy);
}

}  // namespace gv::ops
