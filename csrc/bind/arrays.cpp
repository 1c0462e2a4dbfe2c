// arrays.cpp — see arrays.h.
#include "arrays.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "../base/memory.h"

namespace gv::bind {
namespace {

constexpr int kFloat32 = 11, kFloat64 = 12;  // NumPy's type numbers

std::string type_name(const py::object& value) {
  return py::str(py::type::handle_of(value).attr("__name__"));
}

// The bytes that an array touches: first <= p < last. Nothing for an empty one.
struct Extent {
  const char *first, *last;
};
Extent extent(const Array& a) {
  if (a.size() == 0) return {nullptr, nullptr};
  const char *first = a.data(), *last = a.data() + a.itemsize();
  for (int i = 0; i < a.ndim(); ++i) {
    const index span = a.stride(i) * (a.shape(i) - 1);
    (span < 0 ? first : last) += span;
  }
  return {first, last};
}

bool same_array(const Array& a, const Array& b) {
  if (a.data() != b.data() || a.ndim() != b.ndim()) return false;
  for (int i = 0; i < a.ndim(); ++i) {
    if (a.shape(i) != b.shape(i) || (a.shape(i) > 1 && a.stride(i) != b.stride(i))) return false;
  }
  return true;
}

// Whether two matrices are different columns of one.
bool side_by_side(const Array& a, const Array& b) {
  if (a.ndim() != 2 || b.ndim() != 2 || a.stride(-2) != b.stride(-2)) return false;
  const index row = a.stride(-2), item = a.itemsize();
  if (a.stride(-1) != item || b.stride(-1) != b.itemsize() || row < a.shape(-1) * item) return false;
  const index between = ((b.data() - a.data()) % row + row) % row;
  return between >= a.shape(-1) * item && between + b.shape(-1) * b.itemsize() <= row;
}

// Whether elements may share memory: from the nearest axis to the farthest, each must step over those before it.
bool folded(const Array& a) {
  std::vector<std::pair<index, index>> axes;  // (stride, size)
  for (int i = 0; i < a.ndim(); ++i)
    if (a.shape(i) > 1) axes.emplace_back(std::abs(a.stride(i)), a.shape(i));
  std::sort(axes.begin(), axes.end());
  index span = a.itemsize();
  for (const auto& [stride, size] : axes) {
    if (stride < span) return a.size() > 0;
    span += stride * (size - 1);
  }
  return false;
}

Rows whole(const Array& a) {
  const index cols = a.ndim() == 0 ? 1 : a.shape(-1);
  index rows = 1;
  for (int i = 0; i + 1 < a.ndim(); ++i) rows *= a.shape(i);
  return {a.object(), a.data(), rows, cols, cols};
}

}  // namespace

void refuse(const char* op, const std::string& expected, const std::string& got) {
  throw py::value_error("[" + std::string(op) + "] expected " + expected + ", got " + got);
}
void refuse_kind(const char* op, const std::string& expected, const std::string& got) {
  throw py::type_error("[" + std::string(op) + "] expected " + expected + ", got " + got);
}

std::string text(const Shape& shape) {
  std::string s = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (shape.size() == 1 ? ",)" : ")");
}

index Array::size() const {
  index n = 1;
  for (int i = 0; i < ndim(); ++i) n *= shape(i);
  return n;
}

Array Array::transposed(const std::vector<int>& axes) const {
  Shape sizes, steps;
  for (const int axis : axes) {
    sizes.push_back(shape(axis));
    steps.push_back(stride(axis));
  }
  const auto type = py::reinterpret_borrow<py::dtype>(proxy()->descr);
  return Array(py::array(type, sizes, steps, data(), object_), name_);
}

Array floats(const char* op, const char* name, const py::object& value) {
  if (!py::isinstance<py::array>(value))
    refuse_kind(op, std::string(name) + " to be a NumPy array of float32 or float64", type_name(value));
  Array a(value, name);
  const int type = a.type_number();
  if (type != kFloat32 && type != kFloat64)
    refuse_kind(op, std::string(name) + " to be float32 or float64",
                a.dtype_text() + " of shape " + a.shape_text());
  const char order =
      py::detail::array_descriptor_proxy(py::detail::array_proxy(value.ptr())->descr)->byteorder;
  if (order != '=' && order != '|')
    refuse_kind(op, std::string(name) + " to be in the machine's byte order", a.dtype_text());
  return a;
}

Array floats_or_none(const char* op, const char* name, const py::object& value) {
  return value.is_none() ? Array() : floats(op, name, value);
}

void expect_same_dtype(const char* op, const Array& first, const Array& other) {
  if (!other || first.type_number() == other.type_number()) return;
  refuse_kind(op, std::string(other.name()) + " to be " + first.dtype_text() + " as " + first.name() + " is",
              other.dtype_text() + " (shapes " + first.shape_text() + " and " + other.shape_text() + ")");
}

void expect_shape(const char* op, const Array& array, const Shape& shape) {
  bool same = array.ndim() == int(shape.size());
  for (int i = 0; same && i < array.ndim(); ++i) same = array.shape(i) == shape[std::size_t(i)];
  if (!same) refuse(op, std::string(array.name()) + " of shape " + text(shape), array.shape_text());
}

bool lies_in_rows(const Array& a, Rows& rows) {
  rows = whole(a);
  if (!a.aligned()) return false;
  if (a.contiguous()) return true;
  const index item = a.itemsize();
  if (rows.cols > 1 && a.stride(-1) != item) return false;
  if (rows.rows * rows.cols == 0) return true;
  // The leading axes of more than one element step evenly through memory.
  index step = 0, count = 1;
  for (int i = a.ndim() - 2; i >= 0; --i) {
    if (a.shape(i) == 1) continue;
    if (count == 1) step = a.stride(i);
    else if (a.stride(i) != step * count) return false;
    count *= a.shape(i);
  }
  if (count > 1) rows.ld = step / item;
  return true;
}

Rows input_rows(const Array& a, bool any_ld) {
  Rows rows;
  if (lies_in_rows(a, rows) && (any_ld || rows.ld >= rows.cols)) return rows;
  return whole(Array(a.object().attr("copy")("C"), a.name()));
}

Rows output_rows(const char* op, const Array& a) {
  Rows rows;
  if (lies_in_rows(a, rows) && rows.ld >= rows.cols) return rows;
  refuse(op, std::string(a.name()) + " to have contiguous rows",
         "strides " + std::string(py::str(a.object().attr("strides"))) + " for shape " + a.shape_text());
}

Vector input_vector(const char* op, const Array& a, index n) {
  if (!a) return {py::object(), nullptr};
  expect_shape(op, a, {n});
  return input_flat(a);
}

Vector input_flat(const Array& a) {
  if (!a) return {py::object(), nullptr};
  if (a.contiguous() && a.aligned()) return {a.object(), a.data()};
  const Array copy(a.object().attr("copy")("C"), a.name());
  return {copy.object(), copy.data()};
}

void expect_in_place(const char* op, const Array& a) {
  if (!a.writeable())
    refuse(op, std::string(a.name()) + " to be writeable", "a read-only array of shape " + a.shape_text());
  if (!a.contiguous() || !a.aligned())
    refuse(op, std::string(a.name()) + " to be contiguous (C order) and aligned, as it is changed in place",
           "strides " + std::string(py::str(a.object().attr("strides"))) + " for shape " + a.shape_text());
}

int normal_axis(const char* op, const Array& a, index axis) {
  const int n = a.ndim();
  if (n == 0) refuse(op, std::string(a.name()) + " of at least one axis", "shape ()");
  if (axis < -n || axis >= n)
    refuse(op, "axis in [" + std::to_string(-n) + ", " + std::to_string(n) + ")",
           std::to_string(axis) + " for shape " + a.shape_text());
  return int(axis < 0 ? axis + n : axis);
}

Array axis_last(const Array& a, int axis) {
  if (axis == a.ndim() - 1) return a;
  std::vector<int> axes;
  for (int i = 0; i < a.ndim(); ++i) {
    if (i != axis) axes.push_back(i);
  }
  axes.push_back(axis);
  return a.transposed(axes);
}

StagedRows::StagedRows(const char* op, const Array& out, int axis) {
  if (axis == out.ndim() - 1) {
    rows = output_rows(op, out);
    return;
  }
  target_ = axis_last(out, axis);
  if (lies_in_rows(target_, rows) && rows.ld >= rows.cols) return;
  beside_ = new_array(out.dtype(), target_.shape());
  rows = output_rows(op, beside_);
}

void StagedRows::finish() const {
  if (beside_) target_.object().attr("__setitem__")(py::ellipsis(), beside_.object());
}

namespace {

// An array in a block that `owner` keeps; without a block in memory that NumPy finds.
Array array_in(char* block, py::object owner, DType dtype, const Shape& shape, const char* name) {
  const auto& api = py::detail::npy_api::get();
  PyObject* type = api.PyArray_DescrFromType_(dtype == DType::f32 ? kFloat32 : kFloat64);
  PyObject* made = api.PyArray_NewFromDescr_(
      api.PyArray_Type_, type, int(shape.size()), reinterpret_cast<const Py_intptr_t*>(shape.data()), nullptr,
      block, block ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0, nullptr);
  if (!made) throw py::error_already_set();
  if (owner) api.PyArray_SetBaseObject_(made, owner.release().ptr());
  return Array(py::reinterpret_steal<py::object>(made), name);
}

index bytes_of(DType dtype, const Shape& shape) {
  index bytes = dtype == DType::f32 ? sizeof(float) : sizeof(double);
  for (const index n : shape)
    if (__builtin_mul_overflow(bytes, n, &bytes)) return 0;  // NumPy says so
  return bytes;
}

}  // namespace

Array new_array(DType dtype, const Shape& shape, const char* name) {
  const index bytes = bytes_of(dtype, shape);
  char* block = bytes >= kBigBlock ? lend(bytes) : nullptr;
  py::object owner;
  if (block) owner = py::capsule(block, [](void* p) { give_back(static_cast<char*>(p)); });
  return array_in(block, std::move(owner), dtype, shape, name);
}

Array lasting_zeros(DType dtype, const Shape& shape) {
  auto memory = std::make_unique<Buffer>(bytes_of(dtype, shape));
  char* const block = memory->data();
  py::object owner;
  if (block) owner = py::capsule(memory.release(), [](void* p) { delete static_cast<Buffer*>(p); });
  return array_in(block, std::move(owner), dtype, shape, "out");
}

Array output(const char* op, const py::object& out, DType dtype, const Shape& shape) {
  if (out.is_none()) return new_array(dtype, shape);
  const Array a = floats(op, "out", out);
  if (a.dtype() != dtype)
    refuse_kind(op, dtype == DType::f32 ? "out to be float32" : "out to be float64", a.dtype_text());
  expect_shape(op, a, shape);
  if (!a.writeable()) refuse(op, "out to be writeable", "a read-only array of shape " + a.shape_text());
  if (folded(a))
    refuse(op, "out to have memory of its own for every element",
           "strides " + std::string(py::str(a.object().attr("strides"))) + " for shape " + a.shape_text());
  return a;
}

void expect_apart(const char* op, const Array& out, const Array& other, bool same_allowed) {
  if (!other) return;
  const Extent a = extent(out), b = extent(other);
  if (!(a.first < b.last && b.first < a.last) || side_by_side(out, other)) return;
  if (same_allowed && same_array(out, other)) return;
  refuse(op, std::string(out.name()) + " to share no memory with " + other.name(),
         "overlapping arrays of shapes " + out.shape_text() + " and " + other.shape_text());
}

char* scratch(index bytes) {
  thread_local Buffer kept;
  if (bytes > kept.size()) kept = Buffer(aligned(bytes));
  return kept.data();
}

}  // namespace gv::bind
