// functional_products.cpp — matmul, linear and linear_backward: shapes, broadcasting of stacks and
// the choice of orientation. Blocking and arithmetic are in ops/gemm.
#include "../base/memory.h"
#include "../ops/column_sums.h"
#include "../ops/gemm.h"
#include "../ops/isa.h"
#include "arrays.h"
#include "functional.h"

namespace gv::bind {
namespace {

constexpr double kNanosecondsPerFma = 0.015;

// The last two axes of an operand, steps in elements; a vector is one row or one column.
struct Matrix {
  Array array;
  index rows, cols, row_step, col_step;
  // For either factor: one of the steps is 1 and the other spans a whole line.
  bool usable() const {
    return array.aligned() && ((col_step == 1 && row_step >= cols) || (row_step == 1 && col_step >= rows));
  }
};

Matrix as_matrix(const Array& a, bool column) {
  const index item = a.itemsize();
  Matrix m{a, 1, 1, 0, 0};
  if (a.ndim() > 1) {
    m.rows = a.shape(-2), m.cols = a.shape(-1);
    m.row_step = a.stride(-2) / item, m.col_step = a.stride(-1) / item;
  } else if (column) {
    m.rows = a.shape(0), m.row_step = a.stride(0) / item;
  } else {
    m.cols = a.shape(0), m.col_step = a.stride(0) / item;
  }
  // The step along an axis of one element (or of none) is free.
  const bool empty = m.rows * m.cols == 0;
  if (empty) m.row_step = m.cols, m.col_step = 1;
  else if (m.cols == 1 && m.rows == 1) m.row_step = m.col_step = 1;
  else if (m.cols == 1) m.col_step = m.row_step == 1 ? m.rows : 1;
  else if (m.rows == 1) m.row_step = m.col_step == 1 ? m.cols : 1;
  return m;
}

Matrix input_matrix(const Array& a, bool column) {
  const Matrix m = as_matrix(a, column);
  return m.usable() ? m : as_matrix(Array(a.object().attr("copy")("C"), a.name()), column);
}

Matrix transpose(const Matrix& m) { return {m.array, m.cols, m.rows, m.col_step, m.row_step}; }

template <class T> void set_factors(ops::Gemm<T>& g, const Matrix& a, const Matrix& b) {
  g.m = a.rows, g.k = a.cols, g.n = b.cols;
  g.a = reinterpret_cast<const T*>(a.array.data());
  // gemm asks for ras == 1 or kas == 1.
  g.ras = a.row_step, g.kas = a.col_step;
  g.b = reinterpret_cast<const T*>(b.array.data());
  g.b_transposed = !(b.col_step == 1 && b.row_step >= b.cols);
  g.ldb = g.b_transposed ? b.col_step : b.row_step;
}

std::string two_shapes(const Array& a, const Array& b) { return a.shape_text() + " and " + b.shape_text(); }

// One product of a stack: where its operands start, in elements.
struct Start {
  index a, b, c;
};

// Shapes of the leading axes, broadcast against each other from the right.
Shape stack_shape(const Array& a, const Array& b) {
  const int n = std::max(std::max(a.ndim(), b.ndim()) - 2, 0);
  Shape stack(std::size_t(n), 1);
  for (int i = 1; i <= n; ++i) {
    const index left = a.ndim() - 2 >= i ? a.shape(-2 - i) : 1,
                right = b.ndim() - 2 >= i ? b.shape(-2 - i) : 1;
    if (left != right && left != 1 && right != 1)
      refuse("matmul", "leading axes that broadcast", two_shapes(a, b));
    stack[std::size_t(n - i)] = left == 1 ? right : left;
  }
  return stack;
}

std::vector<Start> starts_of(const Shape& stack, const Array& a, const Array& b, const Array& c, int c_axes) {
  const int n = int(stack.size());
  const index item = a.itemsize();
  const auto step = [&](const Array& x, int matrix_axes, int axis) -> index {
    const int own = x.ndim() - matrix_axes - (n - axis);
    return own < 0 || x.shape(own) == 1 ? 0 : x.stride(own) / item;
  };
  std::vector<Start> starts{{0, 0, 0}};
  for (int axis = 0; axis < n; ++axis) {
    const index sa = step(a, 2, axis), sb = step(b, 2, axis), sc = step(c, c_axes, axis);
    std::vector<Start> longer;
    longer.reserve(starts.size() * std::size_t(stack[std::size_t(axis)]));
    for (const Start& s : starts) {
      for (index i = 0; i < stack[std::size_t(axis)]; ++i)
        longer.push_back({s.a + i * sa, s.b + i * sb, s.c + i * sc});
    }
    starts.swap(longer);
  }
  return starts;
}

// C of one product or of a stack: contiguous rows, else a refusal.
index result_step(const Array& out, index m, index n, bool rows_axis, bool cols_axis) {
  const index item = out.itemsize();
  const index col = cols_axis ? out.stride(-1) : item;
  const index row = rows_axis ? out.stride(cols_axis ? -2 : -1) : n * item;
  const bool lies = out.aligned() && (n <= 1 || col == item) && (m <= 1 || row >= n * item);
  if (!lies && out.size() > 0)
    refuse(
        "matmul", "out to have contiguous rows",
        "strides " + std::string(py::str(out.object().attr("strides"))) + " for shape " + out.shape_text());
  return m > 1 ? row / item : std::max<index>(n, 1);
}

template <class T>
void multiply(const ops::Gemm<T>& g, const std::vector<Start>& starts) {
  const auto& k = ops::active_table().of<T>();
  const auto count = index(starts.size());
  const Region region(kNanosecondsPerFma * double(g.m) * double(g.n) * double(g.k) * double(count));
  const index each = aligned(ops::gemm_scratch(g) * index(sizeof(T)));
  char* memory = scratch(each * region.workers);
  region.run([&](int worker, int workers) {
    T* own = reinterpret_cast<T*>(memory + each * worker);
    const bool whole = count >= workers;  // each product is the work of one worker
    const Range mine = whole ? share(count, 1, worker, workers) : Range{0, count};
    for (index i = mine.first; i < mine.last; ++i) {
      const Start& s = starts[std::size_t(i)];
      ops::Gemm<T> one = g;
      one.a += s.a, one.b += s.b, one.c += s.c;
      ops::run(k, one, own, whole ? 0 : worker, whole ? 1 : workers);
    }
  });
}

py::object matmul(const py::object& left, const py::object& right, const py::object& out) {
  const char* op = "matmul";
  const Array a = floats(op, "a", left), b = floats(op, "b", right);
  expect_same_dtype(op, a, b);
  if (a.ndim() == 0 || b.ndim() == 0) refuse(op, "a and b of at least one axis", two_shapes(a, b));
  const bool rows_axis = a.ndim() > 1, cols_axis = b.ndim() > 1;
  if (a.shape(-1) != b.shape(cols_axis ? -2 : 0))
    refuse(op, "a of shape (…, m, k) and b of shape (…, k, n) with one k", two_shapes(a, b));
  const Shape stack = stack_shape(a, b);
  const index m = rows_axis ? a.shape(-2) : 1, n = cols_axis ? b.shape(-1) : 1;
  Shape shape = stack;
  if (rows_axis) shape.push_back(m);
  if (cols_axis) shape.push_back(n);
  const Array c = output(op, out, a.dtype(), shape);
  const index ldc = result_step(c, m, n, rows_axis, cols_axis);
  if (!out.is_none()) {
    expect_apart(op, c, a, false);
    expect_apart(op, c, b, false);
  }
  if (c.size() > 0) {
    with_dtype(a.dtype(), [&](auto zero) {
      using T = decltype(zero);
      ops::Gemm<T> g{};
      g.c = reinterpret_cast<T*>(c.data());
      g.ldc = ldc;
      const Matrix second = input_matrix(b, true);
      // A stack times one matrix is one tall product where the rows of the stack are evenly spaced.
      Rows tall, tall_out;
      if (a.ndim() > 2 && b.ndim() <= 2 && lies_in_rows(a, tall) && tall.ld >= tall.cols && cols_axis &&
          lies_in_rows(c, tall_out) && tall_out.ld >= tall_out.cols) {
        set_factors(g, Matrix{a, tall.rows, tall.cols, tall.ld, 1}, second);
        g.ldc = tall_out.ld;
        multiply(g, {{0, 0, 0}});
        return;
      }
      const Matrix first = input_matrix(a, false);
      std::vector<Start> starts{{0, 0, 0}};
      if (!stack.empty())
        starts = starts_of(stack, first.array, second.array, c, int(rows_axis) + int(cols_axis));
      set_factors(g, first, second);
      if (n == 1 && m > 1 && first.row_step == 1 && ldc == 1) {
        // A column-major matrix times a vector: the same chains as the vector times its rows.
        set_factors(g, transpose(second), transpose(first));
        g.ldc = m;
        for (Start& s : starts) std::swap(s.a, s.b);
      }
      multiply(g, starts);
    });
  }
  if (shape.empty() && out.is_none()) return c.object().attr("__getitem__")(py::tuple());
  return c.object();
}

Shape with_last(const Array& x, index last) {
  Shape shape = x.shape();
  shape.back() = last;
  return shape;
}

Matrix from_rows(const Array& a, const Rows& r) { return {Array(r.keep, a.name()), r.rows, r.cols, r.ld, 1}; }

py::object linear(const py::object& x_in, const py::object& weight_in, const py::object& bias_in,
                  const py::object& out) {
  const char* op = "linear";
  const Array x = floats(op, "x", x_in), weight = floats(op, "weight", weight_in);
  const Array bias = floats_or_none(op, "bias", bias_in);
  expect_same_dtype(op, x, weight);
  expect_same_dtype(op, x, bias);
  if (x.ndim() == 0 || weight.ndim() != 2 || x.shape(-1) != weight.shape(1))
    refuse(op, "x of shape (…, in_features) and weight of shape (out_features, in_features)",
           two_shapes(x, weight));
  const Vector added = input_vector(op, bias, weight.shape(0));
  const Array y = output(op, out, x.dtype(), with_last(x, weight.shape(0)));
  const Rows y_rows = output_rows(op, y);
  if (!out.is_none()) {
    for (const Array* other : {&x, &weight, &bias}) expect_apart(op, y, *other, false);
  }
  const Rows x_rows = input_rows(x, false);
  const Matrix left = from_rows(x, x_rows), right = transpose(input_matrix(weight, false));
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    ops::Gemm<T> g{};
    set_factors(g, left, right);
    g.c = y_rows.as<T>();
    g.ldc = y_rows.ld;
    const Region region(kNanosecondsPerFma * double(g.m) * double(g.n) * double(g.k));
    const index each = aligned(ops::gemm_scratch(g) * index(sizeof(T)));
    char* memory = scratch(each * region.workers);
    Barrier barrier;
    region.run([&](int worker, int workers) {
      ops::run(k, g, reinterpret_cast<T*>(memory + each * worker), worker, workers);
      if (!added.data) return;
      barrier.wait(workers);
      const Range rows = share(g.m, 1, worker, workers);
      T* some = g.c + rows.first * g.ldc;
      k.add_row(rows.size(), g.n, some, g.ldc, added.as<T>(), some, g.ldc);
    });
  });
  return y.object();
}

py::tuple linear_backward(const py::object& dy_in, const py::object& x_in, const py::object& weight_in) {
  const char* op = "linear_backward";
  const Array dy = floats(op, "dy", dy_in), x = floats(op, "x", x_in),
              weight = floats(op, "weight", weight_in);
  expect_same_dtype(op, dy, x);
  expect_same_dtype(op, dy, weight);
  bool fits = weight.ndim() == 2 && x.ndim() > 0 && dy.ndim() == x.ndim() &&
              dy.shape(-1) == weight.shape(0) && x.shape(-1) == weight.shape(1);
  for (int i = 0; fits && i + 1 < x.ndim(); ++i) fits = dy.shape(i) == x.shape(i);
  if (!fits)
    refuse(
        op,
        "dy of shape (…, out_features), x of shape (…, in_features) and weight (out_features, in_features)",
        dy.shape_text() + ", " + x.shape_text() + " and " + weight.shape_text());
  const Array dx = new_array(x.dtype(), x.shape()), dweight = new_array(x.dtype(), weight.shape());
  const Array dbias = new_array(x.dtype(), {weight.shape(0)});
  const Rows dy_rows = input_rows(dy, false), x_rows = input_rows(x, false);
  const Matrix left = from_rows(dy, dy_rows), right = input_matrix(weight, false),
               inputs = from_rows(x, x_rows);
  with_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto& k = ops::active_table().of<T>();
    ops::Gemm<T> to_x{}, to_weight{};
    set_factors(to_x, left, right);
    to_x.c = reinterpret_cast<T*>(dx.data());
    to_x.ldc = std::max<index>(to_x.n, 1);
    set_factors(to_weight, transpose(left), inputs);
    to_weight.c = reinterpret_cast<T*>(dweight.data());
    to_weight.ldc = std::max<index>(to_weight.n, 1);
    to_weight.chain = kChainRows;
    const Region region(2 * kNanosecondsPerFma * double(to_x.m) * double(to_x.n) * double(to_x.k));
    const index doubles = 2 * dbias.shape(0) * index(sizeof(double));
    const index each = aligned(std::max(
        doubles, std::max(ops::gemm_scratch(to_x), ops::gemm_scratch(to_weight)) * index(sizeof(T))));
    char* memory = scratch(each * region.workers);
    region.run([&](int worker, int workers) {
      char* own = memory + each * worker;
      ops::run(k, to_x, reinterpret_cast<T*>(own), worker, workers);
      ops::run(k, to_weight, reinterpret_cast<T*>(own), worker, workers);
      const Range cols = share(dy_rows.cols, 64 / index(sizeof(T)), worker, workers);
      ops::column_sums(k, dy_rows.rows, cols.size(), dy_rows.as<const T>() + cols.first, dy_rows.ld,
                       static_cast<const T*>(nullptr), index(0),
                       reinterpret_cast<T*>(dbias.data()) + cols.first, reinterpret_cast<double*>(own));
    });
  });
  return py::make_tuple(dx.object(), dweight.object(), dbias.object());
}

}  // namespace

void register_products(py::module_& m) {
  m.def("matmul", &matmul);
  m.def("linear", &linear);
  m.def("linear_backward", &linear_backward);
}

}  // namespace gv::bind
