// steps_elementwise.h — panel steps whose element depends on the same element of the inputs:
// arithmetic, activations, dropout, and the column sums of their parameter gradients.
#pragma once
#include "../ops/column_sums.h"
#include "step.h"
#include "update.h"

namespace gv::plan {

enum class Arithmetic : std::uint8_t { add, sub, mul };

// y = x + z, x - z, x * z.
template <class T> class Binary final : public PanelStep<T> {
 public:
  Binary(Arithmetic kind, index multiplicity, index columns, TensorId x, TensorId z, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), kind_(kind) {
    this->reads(x_, x);
    this->reads(z_, z);
    this->writes(y_, y);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const index ld = this->columns, at = rows.first * ld + cols.first;
    const auto& k = *c.kernels;
    const auto kernel = kind_ == Arithmetic::add ? k.add : kind_ == Arithmetic::sub ? k.sub : k.mul;
    kernel(rows.size(), cols.size(), x_.get() + at, ld, z_.get() + at, ld, y_.get() + at, ld);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {y_.id, {z_.id, -1}}; }

 private:
  const Arithmetic kind_;
  Ref<T> x_, z_, y_;
};

// y = scale * x + shift.
template <class T> class Affine final : public PanelStep<T> {
 public:
  Affine(double scale, double shift, index multiplicity, index columns, TensorId x, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), scale_(T(scale)), shift_(T(shift)) {
    this->reads(x_, x);
    this->writes(y_, y);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const index ld = this->columns, at = rows.first * ld + cols.first;
    c.kernels->affine(rows.size(), cols.size(), x_.get() + at, ld, scale_, shift_, y_.get() + at, ld);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {y_.id, {x_.id, -1}}; }

 private:
  const T scale_, shift_;
  Ref<T> x_, y_;
};

// y = x + v or x * v, v a row of parameters.
template <class T> class RowBinary final : public PanelStep<T> {
 public:
  RowBinary(bool multiply, index multiplicity, index columns, TensorId x, TensorId v, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), multiply_(multiply) {
    this->reads(x_, x);
    this->reads(v_, v, Reach::column);
    this->writes(y_, y);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const index ld = this->columns, at = rows.first * ld + cols.first;
    const auto kernel = multiply_ ? c.kernels->mul_row : c.kernels->add_row;
    kernel(rows.size(), cols.size(), x_.get() + at, ld, v_.get() + cols.first, y_.get() + at, ld);
  }

 private:
  const bool multiply_;
  Ref<T> x_, v_, y_;
};

template <class T> class ActivationForward final : public PanelStep<T> {
 public:
  ActivationForward(Activation kind, double alpha, index multiplicity, index columns, TensorId x, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), kind_(kind), params_{alpha} {
    this->reads(x_, x);
    this->writes(y_, y);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const index ld = this->columns, at = rows.first * ld + cols.first;
    c.kernels->activation(kind_, params_, rows.size(), cols.size(), x_.get() + at, ld, y_.get() + at, ld);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {y_.id, {x_.id, -1}}; }

 private:
  const Activation kind_;
  const kernels::ActivationParams params_;
  Ref<T> x_, y_;
};

// dx = dy * f'(x), from the input x of the activation.
template <class T> class ActivationBackward final : public PanelStep<T> {
 public:
  ActivationBackward(Activation kind, double alpha, index multiplicity, index columns, TensorId dy,
                     TensorId x, TensorId dx)
      : PanelStep<T>(multiplicity, columns, false), kind_(kind), params_{alpha} {
    this->reads(dy_, dy);
    this->reads(x_, x);
    this->writes(dx_, dx);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const index ld = this->columns, at = rows.first * ld + cols.first;
    c.kernels->activation_backward(kind_, params_, rows.size(), cols.size(), dy_.get() + at, ld,
                                   x_.get() + at, ld, dx_.get() + at, ld);
  }
  typename PanelStep<T>::Overwrite overwrites() const override { return {dx_.id, {dy_.id, -1}}; }

 private:
  const Activation kind_;
  const kernels::ActivationParams params_;
  Ref<T> dy_, x_, dx_;
};

// Inverted dropout; its own backward, because the mask is a function of the element's number.
template <class T> class Dropout final : public PanelStep<T> {
 public:
  Dropout(double p, int site, index multiplicity, index columns, TensorId x, TensorId y)
      : PanelStep<T>(multiplicity, columns, false), p_(p), site_(std::uint32_t(site)) {
    this->reads(x_, x);
    this->writes(y_, y);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char*) const noexcept override {
    const kernels::PhiloxKey key{c.seed, site_, c.step};
    for (index r = rows.first; r < rows.last; ++r) {
      const index at = r * this->columns + cols.first;
      c.kernels->dropout(cols.size(), std::uint64_t(at), key, p_, x_.get() + at, y_.get() + at);
    }
  }
  double nanoseconds(index batch) const override { return 10 * PanelStep<T>::nanoseconds(batch); }
  typename PanelStep<T>::Overwrite overwrites() const override { return {y_.id, {x_.id, -1}}; }

 private:
  const double p_;
  const std::uint32_t site_;
  Ref<T> x_, y_;
};

// sum[j] = Σ_r x[r][j], or with z: Σ_r x[r][j] * z[r][j]: gradients of biases, scales and shifts.
template <class T> class ColumnSums final : public PanelStep<T> {
 public:
  // With `updated` (and sum -1) the sums go straight into the optimiser of `parameter`.
  ColumnSums(index multiplicity, index columns, TensorId x, TensorId z, TensorId sum, int parameter = -1,
             TensorId updated = -1)
      : PanelStep<T>(multiplicity, columns, true), parameter_(parameter) {
    this->reads(x_, x);
    this->reads(z_, z);
    this->writes(sum_, sum, Reach::column);
    this->writes(updated_, updated, Reach::column);
    this->updates(parameter);
  }
  void panel(const Context<T>& c, Range rows, Range cols, char* scratch) const noexcept override {
    const index ld = this->columns;
    const T* x = x_.get() + cols.first;
    const T* z = z_ ? z_.get() + cols.first : nullptr;
    double* sums = reinterpret_cast<double*>(scratch);
    T* sum = updated_ ? reinterpret_cast<T*>(sums + 2 * cols.size()) : sum_.get() + cols.first;
    ops::column_sums(*c.kernels, rows.size(), cols.size(), x, ld, z, ld, sum, sums);
    if (updated_) c.update->apply(*c.kernels, parameter_, cols.first, cols.size(), sum);
  }
  index scratch_bytes(index) const override { return 3 * this->columns * index(sizeof(double)); }
  bool deferrable() const override { return true; }

 private:
  const int parameter_;
  Ref<T> x_, z_, sum_, updated_;
};

}  // namespace gv::plan
