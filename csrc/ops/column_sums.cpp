// column_sums.cpp — see column_sums.h.
#include "column_sums.h"

namespace gv::ops {

template <class T>
void column_sums(const kernels::Kernels<T>& k, index rows, index cols, const T* x, index ldx, const T* z,
                 index ldz, T* sum, double* scratch) noexcept {
  double *total = scratch, *block = scratch + cols;
  for (index j = 0; j < cols; ++j) total[j] = 0;
  for (index r = 0; r < rows; r += kRowBlock) {
    const index some = rows - r < kRowBlock ? rows - r : kRowBlock;
    double* into = r == 0 ? total : block;
    if (z) k.column_dots(some, cols, x + r * ldx, ldx, z + r * ldz, ldz, into);
    else k.column_sums(some, cols, x + r * ldx, ldx, into);
    if (r > 0)
      for (index j = 0; j < cols; ++j) total[j] += block[j];
  }
  for (index j = 0; j < cols; ++j) sum[j] = T(total[j]);
}

template void column_sums(const kernels::Kernels<float>&, index, index, const float*, index, const float*,
                          index, float*, double*) noexcept;
template void column_sums(const kernels::Kernels<double>&, index, index, const double*, index, const double*,
                          index, double*, double*) noexcept;

}  // namespace gv::ops
