// batchnorm_rows.h — batch normalisation of a whole matrix, dealt by blocks of rows: the moments (sums) of
// every block, then their merging in ascending order, then y (dx). The same bits as batchnorm.h, which deals
// columns, because the order of the blocks is the order of the sums. Memory is walked along short rows; of long ones
// in tiles of a few lines by a block of rows, and the tile that comes next is asked for while one is worked on.
// Not here: the meetings of the workers between the three parts.
#pragma once
#include "batchnorm.h"

namespace gv::ops {

// Whether a matrix is dealt by rows rather than by columns: where every worker finds a block of rows, for
// memory is read faster along its rows.
template <class T> bool batchnorm_by_rows(index rows, index cols, int workers);

// Doubles that all workers share: moments forward, three sums backward (two where no shift is found), of
// every block.
constexpr index batchnorm_blocks(index rows) { return (rows + kRowBlock - 1) / kRowBlock; }
constexpr index batchnorm_forward_blocks(index rows, index cols) { return 2 * cols * batchnorm_blocks(rows); }
constexpr index batchnorm_backward_blocks(index rows, index cols) {
  return 3 * cols * batchnorm_blocks(rows);
}
// Elements of T that a worker needs for the application, and all together; none where few rows would not win back
// the copies.
constexpr index batchnorm_repeated(index cols) { return 4 * (cols + kernels::kOverlap); }
constexpr index batchnorm_repeated(index rows, index cols, int workers) {
  return rows >= 8 * workers ? batchnorm_repeated(cols) * workers : 0;
}

// The three parts; the last is also all of inference. Training forward with T = double is dealt by columns: refine
// (batchnorm.cpp) reads x once more. repeated is null where there are no elements to share.
template <class T>
void batchnorm_rows_moments(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, double* blocks,
                            int worker, int workers) noexcept;
template <class T>
void batchnorm_rows_merge(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, const double* blocks,
                          int worker, int workers) noexcept;
template <class T>
void batchnorm_rows_apply(const kernels::Kernels<T>& k, const BatchNormForward<T>& args, T* repeated,
                          int worker, int workers) noexcept;

// In the first and the last part found_shift is not null and relu is false.
template <class T>
void batchnorm_rows_moments(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, double* blocks,
                            int worker, int workers) noexcept;
template <class T>
void batchnorm_rows_merge(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, double* blocks,
                          int worker, int workers) noexcept;
template <class T>
void batchnorm_rows_apply(const kernels::Kernels<T>& k, const BatchNormBackward<T>& args, T* repeated,
                          int worker, int workers) noexcept;

}  // namespace gv::ops
