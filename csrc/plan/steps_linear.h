// steps_linear.h — products with a parameter: forward, gradient of the input, gradient of the
// parameter (with the update inside where nobody asks to see the gradient).
#pragma once
#include <algorithm>

#include "../base/memory.h"
#include "../ops/gemm.h"
#include "step.h"
#include "update.h"

namespace gv::plan {

// y = x @ weight.T (+ bias) with weight (columns, inner), or y = x @ weight with weight
// (inner, columns): also dx = dy @ weight, where weight lies as it is used.
template <class T> class Product final : public PanelStep<T> {
 public:
  Product(index multiplicity, index columns, index inner, TensorId x, TensorId weight, bool transposed,
          TensorId bias, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), inner_(inner), transposed_(transposed) {
    this->reads(x_, x, Reach::row);
    this->reads(weight_, weight, Reach::all);
    this->reads(bias_, bias, Reach::column);
    this->writes(y_, y);
  }

  void panel(const Context<T>& c, Range rows, Range cols, char* scratch) const noexcept override {
    ops::Gemm<T> product = describe(rows, cols);
    product.ahead = c.ahead;
    product.fresh = c.fresh;
    ops::gemm_block(*c.kernels, product, Range{0, product.m}, Range{0, product.n},
                    reinterpret_cast<T*>(scratch));
    if (bias_) {
      T* y = y_.get() + rows.first * this->columns + cols.first;
      c.kernels->add_row(rows.size(), cols.size(), y, this->columns, bias_.get() + cols.first, y,
                         this->columns);
    }
  }
  index scratch_bytes(index batch) const override {
    return ops::gemm_scratch(describe({0, this->multiplicity * batch}, {0, this->columns})) *
           index(sizeof(T));
  }
  double nanoseconds(index batch) const override {
    return double(this->multiplicity * batch) * double(this->columns) * double(inner_) * 0.015;
  }

 private:
  ops::Gemm<T> describe(Range rows, Range cols) const {
    ops::Gemm<T> g{};
    g.m = rows.size();
    g.n = cols.size();
    g.k = inner_;
    g.a = x_.get() + rows.first * inner_;
    g.ras = inner_;
    g.kas = 1;
    g.ldb = transposed_ ? inner_ : this->columns;
    g.b = weight_.get() + cols.first * (transposed_ ? inner_ : 1);
    g.b_transposed = transposed_;
    g.ldc = this->columns;
    g.c = y_.get() + rows.first * g.ldc + cols.first;
    return g;
  }

  const index inner_;
  const bool transposed_;
  Ref<T> x_, weight_, bias_, y_;
};

// The gradient (rows, columns) = leftᵀ · right of a parameter, summed over the batch: chains of
// FMAs that restart every kChainRows. With `update`, each stretch of it goes straight from scratch
// into the optimiser and is never stored.
template <class T> class ProductGradient final : public Instruction<T> {
 public:
  ProductGradient(index multiplicity, index rows, index columns, TensorId left, TensorId right,
                  TensorId gradient, int parameter, TensorId updated)
      : multiplicity_(multiplicity),
        rows_(rows),
        columns_(columns),
        parameter_(parameter),
        updates_(updated >= 0) {
    this->reads(left_, left, Reach::all);
    this->reads(right_, right, Reach::all);
    if (updates_) this->updates(parameter), this->writes(updated_, updated, Reach::all);
    else this->writes(gradient_, gradient, Reach::all);
  }

  // Dealt so that the larger operand is read in parts: by columns where the gradient is wider than high.
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    constexpr index kLine = kernels::kLineBytes / index(sizeof(T));
    const bool by_columns = columns_ > rows_ && columns_ >= kLine * w.team;
    const Range cols = by_columns ? share(columns_, kLine, w.id, w.team) : Range{0, columns_};
    const Range mine = by_columns ? Range{0, rows_} : share(rows_, 1, w.id, w.team);
    T* stretch = reinterpret_cast<T*>(w.scratch);
    const index at_once = rows_at_once();
    for (index first = mine.first; first < mine.last; first += at_once) {
      const Range rows{first, std::min(first + at_once, mine.last)};
      if (updates_) update_rows(c, w, rows, cols, stretch);
      else product(c, rows, cols, gradient_.get() + first * columns_ + cols.first, columns_, stretch);
    }
  }
  index scratch_bytes(index batch) const override {
    const index gemm = ops::gemm_scratch(
        describe(multiplicity_ * batch, Range{0, rows_at_once()}, Range{0, columns_}, nullptr, columns_));
    return (gemm + (updates_ ? stretch_elements() : 0)) * index(sizeof(T));
  }
  double nanoseconds(index batch) const override {
    return double(multiplicity_ * batch) * double(rows_) * double(columns_) * 0.015 +
           (updates_ ? double(rows_) * double(columns_) * 0.1 : 0);
  }
  bool has_products() const override { return true; }
  bool deferrable() const override { return true; }

 private:
  static constexpr index kRowsAtOnce = 128;
  static constexpr index kStretch = 32 * 1024;  // elements of gradient between product and update
  index stretch_elements() const {
    return aligned(rows_at_once() * columns_ * index(sizeof(T))) / index(sizeof(T));
  }
  // How many rows of the gradient are found at once.
  index rows_at_once() const {
    if (!updates_) return std::max<index>(1, rows_);
    const index fits = std::max<index>(1, kStretch / std::max<index>(1, columns_));
    return std::max<index>(1, std::min({rows_, fits, kRowsAtOnce}));
  }
  ops::Gemm<T> describe(index batch, Range rows, Range cols, T* result, index ld) const {
    ops::Gemm<T> g{};
    g.m = rows.size();
    g.n = cols.size();
    g.k = batch;
    g.a = left_.get() + rows.first;
    g.ras = 1;
    g.kas = rows_;
    g.b = right_.get() + cols.first;
    g.ldb = columns_;
    g.c = result;
    g.ldc = ld;
    g.chain = kChainRows;
    return g;
  }
  void product(const Context<T>& c, Range rows, Range cols, T* result, index ld, T* scratch) const noexcept {
    ops::Gemm<T> g = describe(multiplicity_ * c.batch, rows, cols, result, ld);
    g.ahead = c.ahead;
    ops::gemm_block(*c.kernels, g, Range{0, g.m}, Range{0, g.n}, scratch);
  }
  // Other workers have read the parameter since it was written, and to get its lines back takes a while, which
  // the product gives.
  void update_rows(const Context<T>& c, const Worker& w, Range rows, Range cols, T* stretch) const noexcept {
    constexpr index kLine = kernels::kLineBytes;
    const index n = cols.size(), at = rows.first * columns_ + cols.first;
    const bool whole = n == columns_;
    kernels::Ahead lines[kRowsAtOnce];
    index pieces = 0;
    for (index r = 0; w.team > 1 && r < rows.size() && (r == 0 || !whole); ++r)
      lines[pieces++] = {reinterpret_cast<const char*>(updated_.get() + at + r * columns_),
                         ((whole ? rows.size() : 1) * n * index(sizeof(T)) + kLine - 1) / kLine};
    c.ahead->write = {lines, lines + pieces, 0};
    product(c, rows, cols, stretch, n, stretch + stretch_elements());
    c.ahead->write = {};
    if (whole) return c.update->apply(*c.kernels, parameter_, at, rows.size() * n, stretch);
    for (index r = 0; r < rows.size(); ++r)
      c.update->apply(*c.kernels, parameter_, at + r * columns_, n, stretch + r * n);
  }

  const index multiplicity_, rows_, columns_;
  const int parameter_;
  const bool updates_;
  Ref<T> left_, right_, gradient_, updated_;
};

// y = a @ b, sample by sample, with one operand or the other transposed for the gradients.
template <class T> class StackedProduct final : public Instruction<T> {
 public:
  // Each of the multiplicity * batch products is (m, k) @ (k, n).
  StackedProduct(index multiplicity, index m, index n, index k, TensorId a, bool a_transposed, TensorId b,
                 bool b_transposed, TensorId y)
      : multiplicity_(multiplicity),
        m_(m),
        n_(n),
        k_(k),
        a_transposed_(a_transposed),
        b_transposed_(b_transposed) {
    this->reads(a_, a, Reach::all);
    this->reads(b_, b, Reach::all);
    this->writes(y_, y, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const Range mine = share(multiplicity_ * c.batch, 1, w.id, w.team);
    for (index i = mine.first; i < mine.last; ++i)
      ops::gemm_block(*c.kernels, describe(i), Range{0, m_}, Range{0, n_}, reinterpret_cast<T*>(w.scratch));
  }
  index scratch_bytes(index) const override { return ops::gemm_scratch(describe(0)) * index(sizeof(T)); }
  double nanoseconds(index batch) const override {
    return double(multiplicity_ * batch) * double(m_) * double(n_) * double(k_) * 0.015;
  }

 private:
  ops::Gemm<T> describe(index i) const {
    ops::Gemm<T> g{};
    g.m = m_;
    g.n = n_;
    g.k = k_;
    g.a = a_.get() + i * m_ * k_;
    g.ras = a_transposed_ ? 1 : k_;
    g.kas = a_transposed_ ? m_ : 1;
    g.b = b_.get() + i * k_ * n_;
    g.ldb = b_transposed_ ? k_ : n_;
    g.b_transposed = b_transposed_;
    g.c = y_.get() + i * m_ * n_;
    g.ldc = n_;
    return g;
  }
  const index multiplicity_, m_, n_, k_;
  const bool a_transposed_, b_transposed_;
  Ref<T> a_, b_, y_;
};

}  // namespace gv::plan
