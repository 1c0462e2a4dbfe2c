// steps_shape.h — instructions that move elements: concatenation and its pieces, trailing
// broadcast and its gradient. They do no arithmetic but the sums of the broadcast's gradient.
#pragma once
#include <cstring>

#include "graph.h"
#include "step.h"

namespace gv::plan {

// Copies columns [from, from + columns) of x (ldx wide) to columns [to, …) of y (ldy wide).
template <class T> class CopyColumns final : public Instruction<T> {
 public:
  CopyColumns(index multiplicity, index columns, TensorId x, index ldx, index from, TensorId y, index ldy,
              index to)
      : multiplicity_(multiplicity), columns_(columns), ldx_(ldx), from_(from), ldy_(ldy), to_(to) {
    this->reads(x_, x, Reach::all);
    this->writes(y_, y, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const Range rows = share(multiplicity_ * c.batch, 16, w.id, w.team);
    for (index r = rows.first; r < rows.last; ++r)
      std::memcpy(y_.get() + r * ldy_ + to_, x_.get() + r * ldx_ + from_, std::size_t(columns_) * sizeof(T));
  }
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override {
    return double(multiplicity_ * batch) * double(columns_) * 0.1;
  }

 private:
  const index multiplicity_, columns_, ldx_, from_, ldy_, to_;
  Ref<T> x_, y_;
};

// For each element of the big shape, the element of the small one that it repeats.
std::vector<index> broadcast_source(const Shape& small, const Shape& big);

// y[r][j] = x[r][source[j]]; unless batched, x is one row for the whole batch (a parameter).
template <class T> class Expand final : public Instruction<T> {
 public:
  Expand(std::vector<index> source, bool batched, index small, TensorId x, TensorId y)
      : source_(std::move(source)), batched_(batched), small_(small) {
    this->reads(x_, x, Reach::all);
    this->writes(y_, y, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const index n = index(source_.size());
    const Range rows = share(batched_ ? c.batch : 1, 4, w.id, w.team);
    for (index r = rows.first; r < rows.last; ++r)
      for (index j = 0; j < n; ++j) y_.get()[r * n + j] = x_.get()[r * small_ + source_[std::size_t(j)]];
  }
  index scratch_bytes(index) const override { return 0; }
  double nanoseconds(index batch) const override {
    return double(batched_ ? batch : 1) * double(source_.size());
  }

 private:
  const std::vector<index> source_;
  const bool batched_;
  const index small_;
  Ref<T> x_, y_;
};

// dx[r][i] = Σ dy[r][j] over the j with source[j] == i, in ascending j, in double.
template <class T> class ExpandGradient final : public Instruction<T> {
 public:
  ExpandGradient(std::vector<index> source, bool batched, index small, TensorId dy, TensorId dx)
      : source_(std::move(source)), batched_(batched), small_(small) {
    this->reads(dy_, dy, Reach::all);
    this->writes(dx_, dx, Reach::all);
  }
  void run(const Context<T>& c, const Worker& w) const noexcept override {
    const index n = index(source_.size());
    double* sum = reinterpret_cast<double*>(w.scratch);
    const Range rows = share(batched_ ? c.batch : 1, 4, w.id, w.team);
    for (index r = rows.first; r < rows.last; ++r) {
      for (index i = 0; i < small_; ++i) sum[i] = 0;
      for (index j = 0; j < n; ++j) sum[source_[std::size_t(j)]] += double(dy_.get()[r * n + j]);
      for (index i = 0; i < small_; ++i) dx_.get()[r * small_ + i] = T(sum[i]);
    }
  }
  index scratch_bytes(index) const override { return small_ * index(sizeof(double)); }
  double nanoseconds(index batch) const override {
    return double(batched_ ? batch : 1) * double(source_.size());
  }

 private:
  const std::vector<index> source_;
  const bool batched_;
  const index small_;
  Ref<T> dy_, dx_;
};

}  // namespace gv::plan
