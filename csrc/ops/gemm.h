// gemm.h — the matrix product for operands of any size: cache blocking and packing around
// kernels/gemm.h, and the dealing of C to workers. Each element of C is the chain (or chains)
// of FMAs that Gemm describes, whatever the blocking, the ranges or the number of workers.
#pragma once
#include "../base/parallel.h"
#include "../base/types.h"
#include "../kernels/table.h"

namespace gv::ops {

// C (m x n) = or += A (m x k) * B. Element (i, p) of A is a[i*ras + p*kas] where ras == 1 or
// kas == 1. B is k x n row-major or, with b_transposed, n x k row-major (C = A * Bᵀ). C is
// row-major and overlaps neither. Without accumulate it is never read before it is written.
//   chain == 0  each element is one chain of FMAs in ascending p, from 0 or (accumulate) from c.
//   chain > 0   the chain restarts at 0 every `chain` values of p; the partial products are added
//               in ascending order: c = p0 or (accumulate) c = c + p0, then c = c + p1, …
template <class T> struct Gemm {
  index m, n, k;
  const T* a;
  index ras, kas;
  const T* b;
  index ldb;
  bool b_transposed;
  T* c;
  index ldc;
  bool accumulate;
  index chain;
  kernels::AheadQueue* ahead;  // the worker's; may be null
  bool fresh;                  // a hint: other workers have just written parts of A
};

// Elements of scratch for one worker, for any block of the product; 64-byte aligned memory is asked for.
template <class T> index gemm_scratch(const Gemm<T>& g);

// The block rows x cols of C over the whole k; serial.
template <class T>
void gemm_block(const kernels::Kernels<T>& kernels, const Gemm<T>& g, Range rows, Range cols,
                T* scratch) noexcept;

// The worker's share of C. No barrier; scratch is the worker's own.
template <class T>
void run(const kernels::Kernels<T>& kernels, const Gemm<T>& g, T* scratch, int worker, int workers) noexcept;

}  // namespace gv::ops
