// functional_losses.cpp — losses of a prediction and their gradients: which shapes and labels they
// take, and what "mean", "sum" and "none" divide by. Arithmetic: ops/loss.
#include "../ops/isa.h"
#include "../ops/loss.h"
#include "arrays.h"
#include "functional.h"

namespace gv::bind {
namespace {

enum class Reduction { mean, sum, none };

Reduction reduction_named(const char* op, const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  refuse(op, "reduction to be 'mean', 'sum' or 'none'", "'" + name + "'");
}

// Labels as contiguous int64, checked against [0, classes).
py::array_t<std::int64_t> as_labels(const char* op, const py::array& target, index classes) {
  if (target.dtype().kind() != 'i' && target.dtype().kind() != 'u')
    refuse_kind(op, "target of integers, or of probabilities for each class",
                std::string(py::str(target.dtype())) + " of shape " +
                    text(Shape(target.shape(), target.shape() + target.ndim())));
  // Unsigned labels beyond int64 become negative and are refused with the others.
  py::array_t<std::int64_t> labels(py::object(target.attr("astype")("int64", "C", "unsafe", false, false)));
  if (!Array(labels, "target").aligned())
    labels = py::array_t<std::int64_t>(py::object(labels.attr("copy")("C")));
  const std::int64_t* p = labels.data();
  for (index i = 0; i < labels.size(); ++i) {
    if (p[i] >= 0 && p[i] < classes) continue;
    const std::string value = py::str(target.attr("__getitem__")(i));
    refuse(op, "labels in [0, " + std::to_string(classes) + ")", value + " at index " + std::to_string(i));
  }
  return labels;
}

// Runs the loss over its rows; count is what the mean divides by.
template <class T>
py::tuple reduced(ops::Loss<T>& g, Reduction reduction, double count, double nanoseconds_per_element,
                  const Array& dx) {
  const auto& k = ops::active_table().of<T>();
  std::vector<double> row_loss(std::size_t(g.rows));
  std::vector<T> row_weight(reduction == Reduction::mean ? std::size_t(g.rows) : 0, T(1 / count));
  g.row_weight = row_weight.empty() ? nullptr : row_weight.data();
  g.row_loss = row_loss.data();
  g.dx = reinterpret_cast<T*>(dx.data());
  g.lddx = g.cols;
  Region(nanoseconds_per_element * double(g.rows) * double(g.cols)).run([&](int worker, int workers) {
    ops::run(k, g, worker, workers);
  });
  if (reduction == Reduction::none) {
    const Array loss = new_array(dx.dtype(), {g.rows});
    for (index r = 0; r < g.rows; ++r) reinterpret_cast<T*>(loss.data())[r] = T(row_loss[std::size_t(r)]);
    return py::make_tuple(loss.object(), dx.object());
  }
  const double sum = ops::sum_of_rows(g.rows, row_loss.data());
  return py::make_tuple(reduction == Reduction::mean ? sum / count : sum, dx.object());
}

py::tuple cross_entropy(const py::object& logits_in, const py::object& target_in, const py::object& weight_in,
                        double label_smoothing, const std::string& reduction_name) {
  const char* op = "cross_entropy";
  const Array logits = floats(op, "logits", logits_in), weight = floats_or_none(op, "weight", weight_in);
  expect_same_dtype(op, logits, weight);
  const Reduction reduction = reduction_named(op, reduction_name);
  if (logits.ndim() != 2) refuse(op, "logits of shape (batch, classes)", logits.shape_text());
  const index rows = logits.shape(0), classes = logits.shape(1);
  if (!py::isinstance<py::array>(target_in))
    refuse_kind(op, "target to be a NumPy array", py::str(py::type::handle_of(target_in).attr("__name__")));
  const auto target = py::reinterpret_borrow<py::array>(target_in);
  const Shape target_shape(target.shape(), target.shape() + target.ndim());
  const bool labelled = target.ndim() == 1;
  if (target_shape != (labelled ? Shape{rows} : Shape{rows, classes}))
    refuse(op, "target of shape (batch,) or (batch, classes)",
           text(target_shape) + " for logits of shape " + logits.shape_text());
  py::array_t<std::int64_t> labels;
  Array soft;
  if (labelled) {
    labels = as_labels(op, target, classes);
  } else {
    soft = floats(op, "target", target_in);
    expect_same_dtype(op, logits, soft);
  }
  const Vector weights = input_vector(op, weight, classes);
  if (reduction == Reduction::mean && (rows == 0 || classes == 0))
    refuse(op, "at least one row and one class to take the mean of", logits.shape_text());
  const Rows x = input_rows(logits), soft_rows = labelled ? Rows{} : input_rows(soft);
  const Array dx = new_array(logits.dtype(), logits.shape());
  return with_dtype(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    ops::Loss<T> g{};
    g.kind = labelled ? ops::LossKind::cross_entropy : ops::LossKind::cross_entropy_soft;
    g.rows = rows, g.cols = classes;
    g.x = x.as<T>(), g.ldx = x.ld;
    g.labels = labelled ? labels.data() : nullptr;
    g.target = soft_rows.as<T>(), g.ldt = soft_rows.ld;
    g.weight = weights.as<T>();
    g.label_smoothing = label_smoothing;
    double count = double(rows);
    if (labelled && g.weight && reduction == Reduction::mean) {
      count = 0;
      for (index r = 0; r < rows; ++r) count += double(g.weight[g.labels[r]]);
    }
    return reduced(g, reduction, count, 2.0, dx);
  });
}

py::tuple paired(const char* op, ops::LossKind kind, const py::object& prediction_in,
                 const py::object& target_in, const py::object& pos_weight_in, double delta,
                 const std::string& reduction_name) {
  const Array x = floats(op, "prediction", prediction_in), target = floats(op, "target", target_in);
  const Array pos_weight = floats_or_none(op, "pos_weight", pos_weight_in);
  expect_same_dtype(op, x, target);
  expect_same_dtype(op, x, pos_weight);
  const Reduction reduction = reduction_named(op, reduction_name);
  if (x.ndim() == 0)
    refuse(op, "prediction of at least one axis", x.shape_text() + " and " + target.shape_text());
  if (x.shape() != target.shape())
    refuse(op, "target of the shape of prediction", target.shape_text() + " for " + x.shape_text());
  const index rows = x.shape(0), cols = x.ndim() == 1 ? 1 : x.shape(-1);
  const Vector weights = input_vector(op, pos_weight, cols);
  if (reduction == Reduction::mean && x.size() == 0)
    refuse(op, "at least one element to take the mean of", x.shape_text());
  // A sample is everything behind the first axis; what carries a weight for each column stays in rows of it.
  const bool split = kind == ops::LossKind::bce && weights.data && x.ndim() > 2;
  const Vector xs = input_flat(x), targets = input_flat(target);
  const Array dx = new_array(x.dtype(), x.shape());
  const index wide = rows == 0 ? 0 : x.size() / rows;
  return with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> repeated;
    ops::Loss<T> g{};
    g.kind = kind;
    g.rows = rows, g.cols = wide;
    g.x = xs.as<T>(), g.ldx = wide;
    g.target = targets.as<T>(), g.ldt = wide;
    g.delta = delta;
    g.weight = weights.as<T>();
    if (split) {
      for (index i = 0; i < wide; ++i) repeated.push_back(weights.as<T>()[i % cols]);
      g.weight = repeated.data();
    }
    return reduced(g, reduction, double(x.size()), kind == ops::LossKind::bce ? 2.0 : 0.2, dx);
  });
}

}  // namespace

void register_losses(py::module_& m) {
  using Text = const std::string&;
  using Object = const py::object&;
  m.def("cross_entropy", &cross_entropy);
  m.def("mse_loss", [](Object x, Object t, Text r) {
    return paired("mse_loss", ops::LossKind::mse, x, t, py::none(), 0, r);
  });
  m.def("l1_loss", [](Object x, Object t, Text r) {
    return paired("l1_loss", ops::LossKind::l1, x, t, py::none(), 0, r);
  });
  m.def("huber_loss", [](Object x, Object t, double delta, Text r) {
    return paired("huber_loss", ops::LossKind::huber, x, t, py::none(), delta, r);
  });
  m.def("binary_cross_entropy_with_logits", [](Object x, Object t, Object pos_weight, Text r) {
    return paired("binary_cross_entropy_with_logits", ops::LossKind::bce, x, t, pos_weight, 0, r);
  });
}

}  // namespace gv::bind
