// steps_norm_rows.h — batch norm in a plan that goes by rows: each direction in three, the sums of every block
// of rows, their merging in ascending order, and the application. The first and the last join groups of
// panel steps; between them all workers meet. The blocks and the order are those of steps_norm.h, so are the
// bits. Forward, the application is BatchNormAgain.
#pragma once
#include "../ops/batchnorm_rows.h"
#include "steps_norm.h"

namespace gv::plan {

// Doubles for two sums a column of every block of rows, by sample; one block more is fixed.
inline index block_sums_per_sample(index multiplicity, index columns) {
  return (2 * columns * multiplicity + kRowBlock - 1) / kRowBlock;
}

template <class T> class BlockSums : public PanelStep<T> {
 public:
  using PanelStep<T>::PanelStep;
  index row_grain() const final { return kRowBlock; }

 protected:
  // sums(row, rows, column, columns, into): into and into + columns take the two sums of a block. A few columns
  // at a time are read twice from L1.
  template <class Sums> void for_blocks(Range rows, double* blocks, Sums&& sums) const {
    constexpr index kWidth = 64;
    for (index r = rows.first; r < rows.last; r += kRowBlock)
      for (index j = 0; j < this->columns; j += kWidth)
        sums(r, std::min(kRowBlock, rows.last - r), j, std::min(kWidth, this->columns - j),
             blocks + r / kRowBlock * 2 * this->columns + j);
  }
};

// Mean and m2 of each block.
template <class T> class BatchNormMoments final : public BlockSums<T> {
 public:
  BatchNormMoments(index multiplicity, index columns, TensorId x, TensorId blocks)
      : BlockSums<T>(multiplicity, columns, false) {
    this->reads(x_, x);
    this->writes(blocks_, blocks, Reach::row);
  }
  void panel(const Context<T>& c, Range rows, Range, char*) const noexcept override {
    const index ld = this->columns;
    this->for_blocks(rows, blocks_.get(), [&](index r, index some, index j, index n, double* into) {
      c.kernels->moments(some, n, x_.get() + r * ld + j, ld, nullptr, into, into + ld);
    });
  }

 private:
  Ref<T> x_;
  Ref<double> blocks_;
};

// The moments of the batch and what follows from them.
template <class T> class BatchNormCoefficients final : public Instruction<T> {
 public:
  BatchNormCoefficients(index multiplicity, index columns, double eps, TensorId blocks, TensorId gamma,
                        TensorId beta, TensorId statistics, TensorId moments)
      : multiplicity_(multiplicity), columns_(columns), eps_(eps) {
    this->reads(blocks_, blocks, Reach::all);
    this->reads(gamma_, gamma, Reach::all);
    this->reads(beta_, beta, Reach::all);
    this->writes(statistics_, statistics, Reach::all);
    this->writes(moments_, moments, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const Statistics<T> s(statistics_.get(), columns_);
    ops::BatchNormForward<T> args{};
    args.rows = multiplicity_ * c.batch, args.cols = columns_;
    args.gamma = gamma_.get(), args.beta = beta_.get(), args.eps = eps_;
    args.mean = moments_.get(), args.m2 = args.mean + columns_;
    args.m = s.m, args.shift = s.shift, args.rstd = s.rstd, args.a = s.a, args.c = s.c;
    ops::batchnorm_rows_merge(*c.kernels, args, blocks_.get(), w.id, w.team);
  }
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override {
    return double(columns_) * double(2 + ops::batchnorm_blocks(multiplicity_ * batch));
  }

 private:
  const index multiplicity_, columns_;
  const double eps_;
  Ref<T> gamma_, beta_, statistics_;
  Ref<double> blocks_, moments_;
};

// Σ g and Σ g (x - m) of each block, g = dy through the ReLU that was folded in.
template <class T> class BatchNormGradientSums final : public BlockSums<T> {
 public:
  BatchNormGradientSums(index multiplicity, index columns, bool relu, TensorId dy, TensorId x,
                        TensorId statistics, TensorId blocks)
      : BlockSums<T>(multiplicity, columns, false), relu_(relu) {
    this->reads(dy_, dy);
    this->reads(x_, x);
    this->reads(statistics_, statistics, Reach::column);
    this->writes(blocks_, blocks, Reach::row);
  }
  void panel(const Context<T>& c, Range rows, Range, char*) const noexcept override {
    const index ld = this->columns;
    const Statistics<T> s(statistics_.get(), ld);
    this->for_blocks(rows, blocks_.get(), [&](index r, index some, index j, index n, double* into) {
      c.kernels->bn_backward_sums(some, n, dy_.get() + r * ld + j, ld, x_.get() + r * ld + j, ld, s.m + j,
                                  s.a + j, s.c + j, relu_, into, into + ld);
    });
  }

 private:
  const bool relu_;
  Ref<T> dy_, x_, statistics_;
  Ref<double> blocks_;
};

// dgamma, dbeta and the coefficients c1, c2, c3 of dx; also what is written to the net right here.
template <class T> class BatchNormGradientCoefficients final : public Instruction<T> {
 public:
  using Tensors = typename BatchNormGradient<T>::Tensors;
  using Commit = typename BatchNormGradient<T>::Commit;
  BatchNormGradientCoefficients(index multiplicity, index columns, bool fixed, const Tensors& t,
                                TensorId blocks, TensorId coefficients, const Commit& commit)
      : multiplicity_(multiplicity),
        columns_(columns),
        fixed_(fixed),
        gamma_parameter_(commit.gamma),
        beta_parameter_(commit.beta),
        momentum_(commit.statistics.momentum) {
    this->reads(blocks_, blocks, Reach::all);
    this->writes(blocks_, blocks, Reach::all);  // the sums of the first block become those of all
    this->reads(gamma_, t.gamma, Reach::all);
    this->reads(statistics_, t.statistics, Reach::all);
    this->writes(coefficients_, coefficients, Reach::all);
    this->writes(dgamma_, t.dgamma, Reach::all);
    this->writes(dbeta_, t.dbeta, Reach::all);
    this->updates(commit.gamma), this->updates(commit.beta);
    this->writes(updated_gamma_, commit.gamma_memory, Reach::all);
    this->writes(updated_beta_, commit.beta_memory, Reach::all);
    this->reads(moments_, commit.statistics.moments, Reach::all);
    this->writes(running_mean_, commit.statistics.running_mean, Reach::all);
    this->writes(running_var_, commit.statistics.running_var, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const Range cols = share(columns_, ops::kColumnGrain<T>, w.id, w.team);
    const index n = cols.size(), j = cols.first, rows = multiplicity_ * c.batch;
    if (n <= 0) return;
    const Statistics<T> s(statistics_.get(), columns_);
    T* const own = reinterpret_cast<T*>(w.scratch);
    ops::BatchNormBackward<T> args{};
    args.rows = rows, args.cols = columns_;
    args.shift = s.shift, args.rstd = s.rstd, args.gamma = gamma_.get();
    args.dgamma = dgamma_ ? dgamma_.get() : own;
    args.dbeta = dbeta_ ? dbeta_.get() : own + columns_;
    args.c1 = coefficients_.get(), args.c2 = args.c1 + columns_, args.c3 = args.c2 + columns_;
    ops::batchnorm_rows_merge(*c.kernels, args, blocks_.get(), w.id, w.team);
    if (fixed_)
      for (index i = j; i < cols.last; ++i) args.c1[i] = s.a[i], args.c2[i] = 0, args.c3[i] = 0;
    if (gamma_parameter_ >= 0) c.update->apply(*c.kernels, gamma_parameter_, j, n, args.dgamma + j);
    if (beta_parameter_ >= 0) c.update->apply(*c.kernels, beta_parameter_, j, n, args.dbeta + j);
    if (moments_)
      c.kernels->bn_update_running(n, rows, moments_.get() + j, moments_.get() + columns_ + j, momentum_,
                                   running_mean_.get() + j, running_var_.get() + j);
  }
  index scratch_bytes(index) const override { return 2 * columns_ * index(sizeof(T)); }
  double nanoseconds(index batch) const override {
    return double(columns_) * double(2 + ops::batchnorm_blocks(multiplicity_ * batch));
  }

 private:
  const index multiplicity_, columns_;
  const bool fixed_;
  const int gamma_parameter_, beta_parameter_;
  const double momentum_;
  Ref<T> gamma_, statistics_, coefficients_, dgamma_, dbeta_;
  Ref<T> updated_gamma_, updated_beta_, running_mean_, running_var_;
  Ref<double> blocks_, moments_;
};

// dx = c1 (g + c2 (x - m) + c3).
template <class T> class BatchNormGradientApply final : public PanelStep<T> {
 public:
  BatchNormGradientApply(index multiplicity, index columns, bool relu, TensorId dy, TensorId x,
                         TensorId statistics, TensorId coefficients, TensorId dx)
      : PanelStep<T>(multiplicity, columns, false), relu_(relu) {
    this->reads(dy_, dy);
    this->reads(x_, x);
    this->reads(statistics_, statistics, Reach::column);
    this->reads(coefficients_, coefficients, Reach::column);
    this->writes(dx_, dx);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const index ld = this->columns, j = cols.first, at = rows.first * ld + j;
    const Statistics<T> s(statistics_.get(), ld);
    const T* const c1 = coefficients_.get() + j;
    c.kernels->bn_backward_apply(rows.size(), cols.size(), dy_.get() + at, ld, x_.get() + at, ld, s.m + j,
                                 s.a + j, s.c + j, relu_, c1, c1 + ld, c1 + 2 * ld, dx_.get() + at, ld);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {dx_.id, {dy_.id, x_.id}}; }

 private:
  const bool relu_;
  Ref<T> dy_, x_, statistics_, coefficients_, dx_;
};

}  // namespace gv::plan
