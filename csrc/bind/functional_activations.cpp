// functional_activations.cpp — the activations and their gradients, by name. Arithmetic and names:
// ops/activation.
#include "../ops/activation.h"
#include "../ops/isa.h"
#include "arrays.h"
#include "functional.h"

namespace gv::bind {
namespace {

double nanoseconds(Activation kind, const Rows& x) {
  const bool cheap =
      kind == Activation::identity || kind == Activation::relu || kind == Activation::leaky_relu;
  return double(x.rows) * double(x.cols) * (cheap ? 0.1 : 1.0);
}

Activation named(const char* op, const std::string& name) {
  Activation kind;
  if (ops::activation_named(name.c_str(), kind)) return kind;
  std::string known;
  for (const char* each : ops::kActivationNames) known += (known.empty() ? "" : ", ") + std::string(each);
  refuse(op, "name to be one of " + known, name);
}

py::object activation(const std::string& op, const std::string& name, double alpha, const py::object& x_in,
                      const py::object& out) {
  const Array x = floats(op.c_str(), "x", x_in);
  const Activation kind = named(op.c_str(), name);
  const Array y = output(op.c_str(), out, x.dtype(), x.shape());
  if (!out.is_none()) expect_apart(op.c_str(), y, x, true);
  const Rows y_rows = output_rows(op.c_str(), y), x_rows = input_rows(x);
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::ActivationForward<T> g{kind,           {alpha},   x_rows.rows,    x_rows.cols,
                                      x_rows.as<T>(), x_rows.ld, y_rows.as<T>(), y_rows.ld};
    Region(nanoseconds(kind, x_rows)).run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
  });
  return y.object();
}

py::object activation_backward(const std::string& name, double alpha, const py::object& dy_in,
                               const py::object& x_in) {
  const char* op = "activation_backward";
  const Array dy = floats(op, "dy", dy_in), x = floats(op, "x", x_in);
  const Activation kind = named(op, name);
  expect_same_dtype(op, x, dy);
  expect_shape(op, dy, x.shape());
  const Array dx = new_array(x.dtype(), x.shape());
  const Rows dy_rows = input_rows(dy), x_rows = input_rows(x);
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    const ops::ActivationBackward<T> g{kind,           {alpha},         x_rows.rows,
                                       x_rows.cols,    dy_rows.as<T>(), dy_rows.ld,
                                       x_rows.as<T>(), x_rows.ld,       reinterpret_cast<T*>(dx.data()),
                                       x_rows.cols};
    Region(nanoseconds(kind, x_rows)).run([&](int worker, int workers) { ops::run(k, g, worker, workers); });
  });
  return dx.object();
}

}  // namespace

void register_activations(py::module_& m) {
  m.def("activation", &activation);
  m.def("activation_backward", &activation_backward);
}

}  // namespace gv::bind
