// functional_norms.cpp — batch normalisation over any axis, layer normalisation and softmax: the
// shapes of their statistics and where results lie. Arithmetic: ops/batchnorm, layernorm, softmax.
#include "../base/memory.h"
#include "../ops/batchnorm_rows.h"
#include "../ops/isa.h"
#include "../ops/layernorm.h"
#include "../ops/softmax.h"
#include "arrays.h"
#include "functional.h"

namespace gv::bind {
namespace {

constexpr double kNanosecondsPerElement = 0.15;  // of one pass or two over a panel in cache

// Consecutive pieces of one block of scratch, each 64-byte aligned; a piece of nothing is null.
class Pieces {
 public:
  template <class T> Pieces& take(T*& piece, index n) {
    piece = nullptr;
    if (n == 0) return *this;
    wanted_.push_back({reinterpret_cast<void**>(&piece), size_});
    size_ += aligned(n * index(sizeof(T)));
    return *this;
  }
  void place() {
    char* memory = scratch(size_);
    for (const auto& [piece, offset] : wanted_) *piece = memory + offset;
  }

 private:
  std::vector<std::pair<void**, index>> wanted_;
  index size_ = 0;
};

// Rows and columns of a normalisation over all axes but one; at least one row.
struct Features {
  int axis;
  index rows, cols;
};
Features features(const char* op, const Array& x, index axis) {
  Features f{normal_axis(op, x, axis), 1, 0};
  f.cols = x.shape(f.axis);
  for (int i = 0; i < x.ndim(); ++i) f.rows *= i == f.axis ? 1 : x.shape(i);
  return f;
}
void expect_rows(const char* op, const Array& x, const Features& f) {
  if (f.rows == 0) refuse(op, "x with at least one row of features", x.shape_text());
}

// The parts of a normalisation that is dealt by rows; the workers meet between them.
template <class T, class Args>
void run_by_rows(const kernels::Kernels<T>& k, const Args& g, const Region& region, double* blocks,
                 T* repeated) {
  Barrier barrier;
  region.run([&](int worker, int workers) {
    ops::batchnorm_rows_moments(k, g, blocks, worker, workers);
    barrier.wait(workers);
    ops::batchnorm_rows_merge(k, g, blocks, worker, workers);
    barrier.wait(workers);
    ops::batchnorm_rows_apply(k, g, repeated, worker, workers);
  });
}

py::tuple batch_norm(const py::object& x_in, const py::object& gamma_in, const py::object& beta_in,
                     double eps, index axis, const py::object& out) {
  const char* op = "batch_norm";
  const Array x = floats(op, "x", x_in);
  const Array gamma = floats_or_none(op, "gamma", gamma_in), beta = floats_or_none(op, "beta", beta_in);
  expect_same_dtype(op, x, gamma);
  expect_same_dtype(op, x, beta);
  const Features f = features(op, x, axis);
  expect_rows(op, x, f);
  const Vector scales = input_vector(op, gamma, f.cols), shifts = input_vector(op, beta, f.cols);
  const Array y = output(op, out, x.dtype(), x.shape());
  if (!out.is_none()) {
    expect_apart(op, y, x, true);
    expect_apart(op, y, gamma, false);
    expect_apart(op, y, beta, false);
  }
  const StagedRows y_rows(op, y, f.axis);
  const Rows x_rows = input_rows(axis_last(x, f.axis));
  const Array mean = new_array(x.dtype(), {f.cols}), rstd = new_array(x.dtype(), {f.cols});
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    ops::BatchNormForward<T> g{};
    g.rows = f.rows, g.cols = f.cols;
    g.x = x_rows.as<T>(), g.ldx = x_rows.ld;
    g.gamma = scales.as<T>(), g.beta = shifts.as<T>();
    g.eps = eps;
    g.y = y_rows.rows.as<T>(), g.ldy = y_rows.rows.ld;
    g.m = reinterpret_cast<T*>(mean.data());
    g.rstd = reinterpret_cast<T*>(rstd.data());
    double* work = nullptr;
    Pieces pieces;
    pieces.take(g.mean, g.cols).take(g.m2, g.cols).take(g.shift, g.cols).take(g.a, g.cols).take(g.c, g.cols);
    const Region region(3 * kNanosecondsPerElement * double(g.rows) * double(g.cols));
    if (sizeof(T) == sizeof(float) && ops::batchnorm_by_rows<T>(g.rows, g.cols, region.workers)) {
      T* repeated = nullptr;
      pieces.take(work, ops::batchnorm_forward_blocks(g.rows, g.cols));
      pieces.take(repeated, ops::batchnorm_repeated(g.rows, g.cols, region.workers)).place();
      run_by_rows(k, g, region, work, repeated);
    } else {
      pieces.take(work, ops::batchnorm_forward_scratch(g.cols)).place();
      region.run([&](int worker, int workers) { ops::run(k, g, work, worker, workers); });
    }
  });
  y_rows.finish();
  return py::make_tuple(y.object(), mean.object(), rstd.object());
}

py::tuple batch_norm_backward(const py::object& dy_in, const py::object& x_in, const py::object& mean_in,
                              const py::object& rstd_in, const py::object& gamma_in, index axis) {
  const char* op = "batch_norm_backward";
  const Array dy = floats(op, "dy", dy_in), x = floats(op, "x", x_in);
  const Array mean = floats(op, "mean", mean_in), rstd = floats(op, "rstd", rstd_in);
  const Array gamma = floats_or_none(op, "gamma", gamma_in);
  for (const Array* other : {&dy, &mean, &rstd, &gamma}) expect_same_dtype(op, x, *other);
  const Features f = features(op, x, axis);
  expect_shape(op, dy, x.shape());
  expect_rows(op, x, f);
  const Vector m = input_vector(op, mean, f.cols), r = input_vector(op, rstd, f.cols);
  const Vector scales = input_vector(op, gamma, f.cols);
  const Array dx = new_array(x.dtype(), x.shape(), "dx");
  const Array dgamma = new_array(x.dtype(), {f.cols}), dbeta = new_array(x.dtype(), {f.cols});
  const StagedRows dx_rows(op, dx, f.axis);
  const Rows x_rows = input_rows(axis_last(x, f.axis)), dy_rows = input_rows(axis_last(dy, f.axis));
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    ops::BatchNormBackward<T> g{};
    g.rows = f.rows, g.cols = f.cols;
    g.dy = dy_rows.as<T>(), g.lddy = dy_rows.ld;
    g.x = x_rows.as<T>(), g.ldx = x_rows.ld;
    g.m = m.as<T>(), g.rstd = r.as<T>(), g.gamma = scales.as<T>();
    g.dx = dx_rows.rows.as<T>(), g.lddx = dx_rows.rows.ld;
    g.dgamma = reinterpret_cast<T*>(dgamma.data());
    g.dbeta = reinterpret_cast<T*>(dbeta.data());
    double* work = nullptr;
    T* shift = nullptr;
    Pieces pieces;
    pieces.take(shift, g.cols).take(g.c1, g.cols).take(g.c2, g.cols).take(g.c3, g.cols);
    const Region region(4 * kNanosecondsPerElement * double(g.rows) * double(g.cols));
    const bool by_rows = ops::batchnorm_by_rows<T>(g.rows, g.cols, region.workers);
    T* repeated = nullptr;
    if (by_rows) {
      pieces.take(work, ops::batchnorm_backward_blocks(g.rows, g.cols));
      pieces.take(repeated, ops::batchnorm_repeated(g.rows, g.cols, region.workers)).place();
    } else {
      pieces.take(work, ops::batchnorm_backward_scratch(g.cols)).place();
    }
    // The mean comes rounded; what it lost matters where it is large against the spread.
    g.shift = g.found_shift = shift;
    if (by_rows) run_by_rows(k, g, region, work, repeated);
    else region.run([&](int worker, int workers) { ops::run(k, g, work, worker, workers); });
  });
  dx_rows.finish();
  return py::make_tuple(dx.object(), dgamma.object(), dbeta.object());
}

py::object batch_norm_inference(const py::object& x_in, const py::object& mean_in, const py::object& var_in,
                                const py::object& gamma_in, const py::object& beta_in, double eps, index axis,
                                const py::object& out) {
  const char* op = "batch_norm_inference";
  const Array x = floats(op, "x", x_in);
  const Array mean = floats(op, "running_mean", mean_in), var = floats(op, "running_var", var_in);
  const Array gamma = floats_or_none(op, "gamma", gamma_in), beta = floats_or_none(op, "beta", beta_in);
  for (const Array* other : {&mean, &var, &gamma, &beta}) expect_same_dtype(op, x, *other);
  const Features f = features(op, x, axis);
  const Vector means = input_vector(op, mean, f.cols), vars = input_vector(op, var, f.cols);
  const Vector scales = input_vector(op, gamma, f.cols), shifts = input_vector(op, beta, f.cols);
  const Array y = output(op, out, x.dtype(), x.shape());
  if (!out.is_none()) {
    expect_apart(op, y, x, true);
    for (const Array* other : {&mean, &var, &gamma, &beta}) expect_apart(op, y, *other, false);
  }
  const StagedRows y_rows(op, y, f.axis);
  const Rows x_rows = input_rows(axis_last(x, f.axis));
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    ops::BatchNormForward<T> g{};
    g.rows = f.rows, g.cols = f.cols;
    g.x = x_rows.as<T>(), g.ldx = x_rows.ld;
    g.y = y_rows.rows.as<T>(), g.ldy = y_rows.rows.ld;
    const Region region(kNanosecondsPerElement * double(f.rows) * double(f.cols));
    T* repeated = nullptr;
    Pieces pieces;
    pieces.take(g.m, g.cols).take(g.a, g.cols).take(g.c, g.cols);
    pieces.take(repeated, ops::batchnorm_repeated(g.rows, g.cols, region.workers)).place();
    k.bn_inference_coefficients(f.cols, means.as<T>(), vars.as<T>(), eps, scales.as<T>(), shifts.as<T>(), g.m,
                                g.a, g.c);
    region.run([&](int worker, int workers) { ops::batchnorm_rows_apply(k, g, repeated, worker, workers); });
  });
  y_rows.finish();
  return y.object();
}

Shape without_last(const Array& x) {
  Shape shape = x.shape();
  shape.pop_back();
  return shape;
}

py::tuple layer_norm(const py::object& x_in, const py::object& gamma_in, const py::object& beta_in,
                     double eps, const py::object& out) {
  const char* op = "layer_norm";
  const Array x = floats(op, "x", x_in);
  const Array gamma = floats_or_none(op, "gamma", gamma_in), beta = floats_or_none(op, "beta", beta_in);
  expect_same_dtype(op, x, gamma);
  expect_same_dtype(op, x, beta);
  if (x.ndim() == 0 || x.shape(-1) == 0)
    refuse(op, "x with a last axis of at least one feature", x.shape_text());
  const Vector scales = input_vector(op, gamma, x.shape(-1)), shifts = input_vector(op, beta, x.shape(-1));
  const Array y = output(op, out, x.dtype(), x.shape());
  if (!out.is_none()) {
    expect_apart(op, y, x, true);
    expect_apart(op, y, gamma, false);
    expect_apart(op, y, beta, false);
  }
  const Rows y_rows = output_rows(op, y), x_rows = input_rows(x);
  const Array mean = new_array(x.dtype(), without_last(x)), rstd = new_array(x.dtype(), without_last(x));
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::LayerNormForward<T> g{x_rows.rows,
                                     x_rows.cols,
                                     x_rows.as<T>(),
                                     x_rows.ld,
                                     scales.as<T>(),
                                     shifts.as<T>(),
                                     eps,
                                     y_rows.as<T>(),
                                     y_rows.ld,
                                     reinterpret_cast<T*>(mean.data()),
                                     reinterpret_cast<T*>(rstd.data())};
    const Region region(3 * kNanosecondsPerElement * double(g.rows) * double(g.cols));
    region.run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
  });
  return py::make_tuple(y.object(), mean.object(), rstd.object());
}

py::tuple layer_norm_backward(const py::object& dy_in, const py::object& x_in, const py::object& mean_in,
                              const py::object& rstd_in, const py::object& gamma_in) {
  const char* op = "layer_norm_backward";
  const Array dy = floats(op, "dy", dy_in), x = floats(op, "x", x_in);
  const Array mean = floats(op, "mean", mean_in), rstd = floats(op, "rstd", rstd_in);
  const Array gamma = floats_or_none(op, "gamma", gamma_in);
  for (const Array* other : {&dy, &mean, &rstd, &gamma}) expect_same_dtype(op, x, *other);
  if (x.ndim() == 0 || x.shape(-1) == 0)
    refuse(op, "x with a last axis of at least one feature", x.shape_text());
  expect_shape(op, dy, x.shape());
  expect_shape(op, mean, without_last(x));
  expect_shape(op, rstd, without_last(x));
  const Vector scales = input_vector(op, gamma, x.shape(-1)), m = input_flat(mean), r = input_flat(rstd);
  const Rows x_rows = input_rows(x), dy_rows = input_rows(dy);
  const Array dx = new_array(x.dtype(), x.shape());
  const Array dgamma = new_array(x.dtype(), {x.shape(-1)}), dbeta = new_array(x.dtype(), {x.shape(-1)});
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::LayerNormBackward<T> g{x_rows.rows,
                                      x_rows.cols,
                                      dy_rows.as<T>(),
                                      dy_rows.ld,
                                      x_rows.as<T>(),
                                      x_rows.ld,
                                      m.as<T>(),
                                      r.as<T>(),
                                      scales.as<T>(),
                                      reinterpret_cast<T*>(dx.data()),
                                      x_rows.cols,
                                      reinterpret_cast<T*>(dgamma.data()),
                                      reinterpret_cast<T*>(dbeta.data())};
    double* work =
        reinterpret_cast<double*>(scratch(ops::layernorm_backward_scratch(g.cols) * index(sizeof(double))));
    const Region region(5 * kNanosecondsPerElement * double(g.rows) * double(g.cols));
    region.run([&](int worker, int workers) { ops::run(k, g, work, worker, workers); });
  });
  return py::make_tuple(dx.object(), dgamma.object(), dbeta.object());
}

py::object softmax(bool logarithm, const py::object& x_in, index axis_in) {
  const char* op = logarithm ? "log_softmax" : "softmax";
  const Array x = floats(op, "x", x_in);
  const int axis = normal_axis(op, x, axis_in);
  const Array y = new_array(x.dtype(), x.shape());
  const StagedRows y_rows(op, y, axis);
  const Rows x_rows = input_rows(axis_last(x, axis));
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::Softmax<T> g{logarithm, x_rows.rows,         x_rows.cols,   x_rows.as<T>(),
                            x_rows.ld, y_rows.rows.as<T>(), y_rows.rows.ld};
    const Region region(10 * kNanosecondsPerElement * double(g.rows) * double(g.cols));
    region.run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
  });
  y_rows.finish();
  return y.object();
}

}  // namespace

void register_norms(py::module_& m) {
  m.def("batch_norm", &batch_norm);
  m.def("batch_norm_backward", &batch_norm_backward);
  m.def("batch_norm_inference", &batch_norm_inference);
  m.def("layer_norm", &layer_norm);
  m.def("layer_norm_backward", &layer_norm_backward);
  m.def("softmax", [](const py::object& x, index axis) { return softmax(false, x, axis); });
  m.def("log_softmax", [](const py::object& x, index axis) { return softmax(true, x, axis); });
}

}  // namespace gv::bind
