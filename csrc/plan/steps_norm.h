// steps_norm.h — batch norm (panel steps, ReLU and residual folded in where the graph allows),
// layer norm and softmax (dealt by rows).
#pragma once
#include <algorithm>
#include <cmath>

#include "../ops/batchnorm.h"
#include "../ops/column_sums.h"
#include "step.h"
#include "update.h"

namespace gv::plan {

struct BatchStatistics {  // of one batch norm, to be merged into the running ones at commit
  TensorId moments, running_mean, running_var;
  index multiplicity, features;
  double momentum;
  bool inside = false;  // the batch norm's backward does it
};

// What a batch norm keeps for its backward: rows of `columns` values in one tensor.
template <class T> struct Statistics {
  T *m, *shift, *rstd, *a, *c;
  Statistics(T* base, index columns)
      : m(base),
        shift(base + columns),
        rstd(base + 2 * columns),
        a(base + 3 * columns),
        c(base + 4 * columns) {}
  static constexpr index kRows = 5;
};

// y = relu?(batch norm of x) + residual?, with the statistics of the batch or the running ones.
template <class T> class BatchNorm final : public PanelStep<T> {
 public:
  struct Tensors {
    TensorId x, gamma, beta, residual, y, statistics;
    TensorId moments;                        // batch statistics: mean and m2 in double
    TensorId running_mean, running_var;      // fixed statistics; -1 otherwise
  };
  BatchNorm(index multiplicity, index columns, double eps, bool relu, const Tensors& t)
      : PanelStep<T>(multiplicity, columns, t.running_mean < 0), eps_(eps), relu_(relu) {
    this->reads(x_, t.x);
    this->reads(gamma_, t.gamma, Reach::column);
    this->reads(beta_, t.beta, Reach::column);
    this->reads(residual_, t.residual);
    this->reads(running_mean_, t.running_mean, Reach::column);
    this->reads(running_var_, t.running_var, Reach::column);
    this->writes(statistics_, t.statistics, Reach::column);
    this->writes(moments_, t.moments, Reach::column);
    this->writes(y_, t.y);
  }

  void panel(const Context<T>& c, Range rows, Range cols, char* scratch) const noexcept override {
    const Statistics<T> s(statistics_.get(), this->columns);
    const index ld = this->columns;
    if (!running_mean_) {
      ops::BatchNormForward<T> args{};
      args.rows = rows.size(), args.cols = ld;
      args.x = x_.get(), args.residual = residual_.get(), args.y = y_.get();
      args.ldx = args.ldr = args.ldy = ld;
      args.gamma = gamma_.get(), args.beta = beta_.get(), args.eps = eps_, args.relu = relu_;
      args.mean = moments_.get(), args.m2 = args.mean + ld;
      args.m = s.m, args.shift = s.shift, args.rstd = s.rstd, args.a = s.a, args.c = s.c;
      return ops::batchnorm_forward_panel(*c.kernels, args, cols, reinterpret_cast<double*>(scratch));
    }
    // Row shares may meet here: every worker writes the same coefficients into its own scratch.
    const index n = cols.size(), j = cols.first, at = rows.first * ld + j;
    T* own = reinterpret_cast<T*>(scratch);
    T *m = own, *a = own + n, *b = own + 2 * n;
    c.kernels->bn_inference_coefficients(n, running_mean_.get() + j, running_var_.get() + j, eps_,
                                         gamma_ ? gamma_.get() + j : nullptr,
                                         beta_ ? beta_.get() + j : nullptr, m, a, b);
    c.kernels->bn_apply(rows.size(), n, x_.get() + at, ld, m, a, b, relu_,
                        residual_ ? residual_.get() + at : nullptr, ld, y_.get() + at, ld);
    if (statistics_ && rows.first == 0)
      for (index i = 0; i < n; ++i) {
        s.m[j + i] = m[i], s.a[j + i] = a[i], s.c[j + i] = b[i], s.shift[j + i] = 0;
        s.rstd[j + i] = T(1 / std::sqrt(double(running_var_.get()[j + i]) + eps_));
      }
  }
  index scratch_bytes(index) const override { return 4 * this->columns * index(sizeof(double)); }
  double nanoseconds(index batch) const override {
    return 3 * PanelStep<T>::nanoseconds(batch) + double(this->columns);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {y_.id, {x_.id, -1}}; }

 private:
  const double eps_;
  const bool relu_;
  Ref<T> x_, gamma_, beta_, residual_, running_mean_, running_var_, statistics_, y_;
  Ref<double> moments_;
};

// y = relu?(batch norm of x) + residual? once more, from the kept statistics: so that what a product
// reads need not be kept until its backward, and for recomputation.
template <class T> class BatchNormAgain final : public PanelStep<T> {
 public:
  BatchNormAgain(index multiplicity, index columns, bool relu, TensorId x, TensorId residual,
                 TensorId statistics, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), relu_(relu) {
    this->reads(x_, x);
    this->reads(residual_, residual);
    this->reads(statistics_, statistics, Reach::column);
    this->writes(y_, y);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const Statistics<T> s(statistics_.get(), this->columns);
    const index ld = this->columns, j = cols.first, at = rows.first * ld + j;
    c.kernels->bn_apply(rows.size(), cols.size(), x_.get() + at, ld, s.m + j, s.a + j, s.c + j, relu_,
                        residual_ ? residual_.get() + at : nullptr, ld, y_.get() + at, ld);
  }

 private:
  const bool relu_;
  Ref<T> x_, residual_, statistics_, y_;
};

// dx, dgamma, dbeta of batch norm (and the ReLU folded into it); `fixed` where the statistics were
// not those of the batch.
template <class T> class BatchNormGradient final : public PanelStep<T> {
 public:
  struct Tensors {
    TensorId dy, x, gamma, statistics, dx, dgamma, dbeta;  // the last three may be -1
  };
  // What is written to the net right here, while it is in cache; -1: not here.
  struct Commit {
    int gamma = -1, beta = -1;            // parameters to update
    TensorId gamma_memory = -1, beta_memory = -1;
    BatchStatistics statistics{-1, -1, -1, 0, 0, 0};
  };
  BatchNormGradient(index multiplicity, index columns, bool relu, bool fixed, const Tensors& t,
                    const Commit& commit)
      : PanelStep<T>(multiplicity, columns, true),
        relu_(relu),
        fixed_(fixed),
        gamma_parameter_(commit.gamma),
        beta_parameter_(commit.beta),
        momentum_(commit.statistics.momentum) {
    this->updates(commit.gamma), this->updates(commit.beta);
    this->writes(updated_gamma_, commit.gamma_memory, Reach::column);
    this->writes(updated_beta_, commit.beta_memory, Reach::column);
    this->reads(moments_, commit.statistics.moments, Reach::column);
    this->writes(running_mean_, commit.statistics.running_mean, Reach::column);
    this->writes(running_var_, commit.statistics.running_var, Reach::column);
    this->reads(dy_, t.dy);
    this->reads(x_, t.x);
    this->reads(gamma_, t.gamma, Reach::column);
    this->reads(statistics_, t.statistics, Reach::column);
    this->writes(dx_, t.dx);
    this->writes(dgamma_, t.dgamma, Reach::column);
    this->writes(dbeta_, t.dbeta, Reach::column);
  }

  void panel(const Context<T>& c, Range rows, Range cols, char* scratch) const noexcept override {
    const Statistics<T> s(statistics_.get(), this->columns);
    const index ld = this->columns, n = cols.size(), j = cols.first;
    double* sums = reinterpret_cast<double*>(scratch);
    T* own = reinterpret_cast<T*>(sums + ops::batchnorm_backward_scratch(n)) - j;
    ops::BatchNormBackward<T> args{};
    args.rows = rows.size(), args.cols = ld;
    args.dy = dy_.get(), args.x = x_.get(), args.dx = dx_.get();
    args.lddy = args.ldx = args.lddx = ld;
    args.m = s.m, args.shift = s.shift, args.rstd = s.rstd, args.a = s.a, args.c = s.c;
    args.gamma = gamma_.get(), args.relu = relu_;
    args.c1 = own, args.c2 = own + n, args.c3 = own + 2 * n;
    args.dgamma = dgamma_ ? dgamma_.get() : own + 3 * n;
    args.dbeta = dbeta_ ? dbeta_.get() : own + 4 * n;
    ops::batchnorm_backward_sums_panel(*c.kernels, args, cols, sums);
    if (fixed_)
      for (index i = j; i < cols.last; ++i) args.c1[i] = s.a[i], args.c2[i] = 0, args.c3[i] = 0;
    if (dx_) ops::batchnorm_backward_apply_panel(*c.kernels, args, cols);
    if (gamma_parameter_ >= 0) c.update->apply(*c.kernels, gamma_parameter_, j, n, args.dgamma + j);
    if (beta_parameter_ >= 0) c.update->apply(*c.kernels, beta_parameter_, j, n, args.dbeta + j);
    if (moments_)
      c.kernels->bn_update_running(n, rows.size(), moments_.get() + j, moments_.get() + ld + j, momentum_,
                                   running_mean_.get() + j, running_var_.get() + j);
  }
  index scratch_bytes(index) const override {
    return ops::batchnorm_backward_scratch(this->columns) * index(sizeof(double)) +
           this->columns * 5 * index(sizeof(T));
  }
  double nanoseconds(index batch) const override {
    return 3 * PanelStep<T>::nanoseconds(batch) + double(this->columns);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {dx_.id, {dy_.id, x_.id}}; }

 private:
  const bool relu_, fixed_;
  const int gamma_parameter_, beta_parameter_;
  const double momentum_;
  Ref<T> dy_, x_, gamma_, statistics_, dx_, dgamma_, dbeta_;
  Ref<T> updated_gamma_, updated_beta_, running_mean_, running_var_;
  Ref<double> moments_;
};

// Instructions that are dealt by rows.
template <class T> class RowInstruction : public Instruction<T> {
 public:
  RowInstruction(index multiplicity, index columns) : multiplicity_(multiplicity), columns_(columns) {}
  void run(const Context<T>& c, const Worker& w) const noexcept final {
    const Range rows = share(multiplicity_ * c.batch, 4, w.id, w.team);
    if (rows.size() > 0) run_rows(c, rows);
  }
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override {
    return double(multiplicity_ * batch) * double(columns_) * 0.3;
  }

 protected:
  virtual void run_rows(const Context<T>&, Range rows) const noexcept = 0;
  const index multiplicity_, columns_;
};

template <class T> class LayerNorm final : public RowInstruction<T> {
 public:
  // statistics: mean and rstd of each row.
  LayerNorm(index multiplicity, index columns, double eps, TensorId x, TensorId gamma, TensorId beta,
            TensorId mean, TensorId rstd, TensorId y)
      : RowInstruction<T>(multiplicity, columns), eps_(eps) {
    this->reads(x_, x, Reach::all);
    this->reads(gamma_, gamma, Reach::all);
    this->reads(beta_, beta, Reach::all);
    this->writes(mean_, mean, Reach::all);
    this->writes(rstd_, rstd, Reach::all);
    this->writes(y_, y, Reach::all);
  }

 private:
  void run_rows(const Context<T>& c, Range rows) const noexcept override {
    const index ld = this->columns_, r = rows.first;
    c.kernels->layernorm(rows.size(), ld, x_.get() + r * ld, ld, gamma_.get(), beta_.get(), eps_,
                         y_.get() + r * ld, ld, mean_.get() + r, rstd_.get() + r);
  }
  const double eps_;
  Ref<T> x_, gamma_, beta_, mean_, rstd_, y_;
};

template <class T> class LayerNormGradient final : public RowInstruction<T> {
 public:
  LayerNormGradient(index multiplicity, index columns, TensorId dy, TensorId x, TensorId mean, TensorId rstd,
                    TensorId gamma, TensorId dx)
      : RowInstruction<T>(multiplicity, columns) {
    this->reads(dy_, dy, Reach::all);
    this->reads(x_, x, Reach::all);
    this->reads(mean_, mean, Reach::all);
    this->reads(rstd_, rstd, Reach::all);
    this->reads(gamma_, gamma, Reach::all);
    this->writes(dx_, dx, Reach::all);
  }

 private:
  void run_rows(const Context<T>& c, Range rows) const noexcept override {
    const index ld = this->columns_, r = rows.first;
    c.kernels->layernorm_backward(rows.size(), ld, dy_.get() + r * ld, ld, x_.get() + r * ld, ld,
                                  mean_.get() + r, rstd_.get() + r, gamma_.get(), dx_.get() + r * ld, ld);
  }
  Ref<T> dy_, x_, mean_, rstd_, gamma_, dx_;
};

// dgamma and dbeta of layer norm: sums over rows, so a panel step.
template <class T> class LayerNormParameterGradient final : public PanelStep<T> {
 public:
  LayerNormParameterGradient(index multiplicity, index columns, TensorId dy, TensorId x, TensorId mean,
                             TensorId rstd, TensorId dgamma, TensorId dbeta)
      : PanelStep<T>(multiplicity, columns, true) {
    this->reads(dy_, dy);
    this->reads(x_, x);
    this->reads(mean_, mean, Reach::all);
    this->reads(rstd_, rstd, Reach::all);
    this->writes(dgamma_, dgamma, Reach::column);
    this->writes(dbeta_, dbeta, Reach::column);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char* scratch) const noexcept override {
    const index ld = this->columns, n = cols.size(), j = cols.first;
    double *total = reinterpret_cast<double*>(scratch), *block = total + 2 * n;
    for (index r = 0; r < rows.size(); r += kRowBlock) {
      double* into = r == 0 ? total : block;
      c.kernels->layernorm_param_sums(std::min(kRowBlock, rows.size() - r), n, dy_.get() + r * ld + j, ld,
                                      x_.get() + r * ld + j, ld, mean_.get() + r, rstd_.get() + r, into,
                                      into + n);
      if (r > 0)
        for (index i = 0; i < 2 * n; ++i) total[i] += block[i];
    }
    for (index i = 0; dgamma_ && i < n; ++i) dgamma_.get()[j + i] = T(total[i]);
    for (index i = 0; dbeta_ && i < n; ++i) dbeta_.get()[j + i] = T(total[n + i]);
  }
  index scratch_bytes(index) const override { return 4 * this->columns * index(sizeof(double)); }

 private:
  Ref<T> dy_, x_, mean_, rstd_, dgamma_, dbeta_;
};

// softmax or log_softmax over the last axis; backward is computed from the result y.
template <class T> class Softmax final : public RowInstruction<T> {
 public:
  Softmax(bool log, index multiplicity, index columns, TensorId x, TensorId y)
      : RowInstruction<T>(multiplicity, columns), log_(log) {
    this->reads(x_, x, Reach::all);
    this->writes(y_, y, Reach::all);
  }

 private:
  void run_rows(const Context<T>& c, Range rows) const noexcept override {
    const index ld = this->columns_, at = rows.first * ld;
    (log_ ? c.kernels->log_softmax : c.kernels->softmax)(rows.size(), ld, x_.get() + at, ld, y_.get() + at,
                                                         ld);
  }
  const bool log_;
  Ref<T> x_, y_;
};

template <class T> class SoftmaxGradient final : public RowInstruction<T> {
 public:
  SoftmaxGradient(bool log, index multiplicity, index columns, TensorId dy, TensorId y, TensorId dx)
      : RowInstruction<T>(multiplicity, columns), log_(log) {
    this->reads(dy_, dy, Reach::all);
    this->reads(y_, y, Reach::all);
    this->writes(dx_, dx, Reach::all);
  }

 private:
  void run_rows(const Context<T>& c, Range rows) const noexcept override {
    const index ld = this->columns_, at = rows.first * ld;
    (log_ ? c.kernels->log_softmax_backward : c.kernels->softmax_backward)(
        rows.size(), ld, dy_.get() + at, ld, y_.get() + at, ld, dx_.get() + at, ld);
  }
  const bool log_;
  Ref<T> dy_, y_, dx_;
};

}  // namespace gv::plan
