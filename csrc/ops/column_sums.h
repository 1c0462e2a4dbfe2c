// column_sums.h — sums over all rows of each column: blocks of kRowBlock rows, merged in ascending
// order in double. The gradients of biases and of parameters that broadcast over rows.
#pragma once
#include "../kernels/table.h"

namespace gv::ops {

// sum[j] = Σ_r x[r][j], or with z: Σ_r x[r][j] * z[r][j]. scratch: 2 * cols doubles. rows may be 0.
template <class T>
void column_sums(const kernels::Kernels<T>& k, index rows, index cols, const T* x, index ldx, const T* z,
                 index ldz, T* sum, double* scratch) noexcept;

}  // namespace gv::ops
