// arrays.h — NumPy arrays as the engine needs them: checked, as rows of contiguous elements, with
// the text of every refusal, "[op] expected …, got …". Inputs are copied where their memory does
// not serve; an output is itself written. Not here: what an operation means or which shapes it wants.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "../base/parallel.h"
#include "../base/types.h"
#include "gil.h"

namespace gv::bind {

namespace py = pybind11;
using Shape = std::vector<index>;

[[noreturn]] void refuse(const char* op, const std::string& expected, const std::string& got);  // ValueError
[[noreturn]] void refuse_kind(const char* op, const std::string& expected,
                              const std::string& got);  // TypeError
std::string text(const Shape& shape);  // "(2, 3)"

// A NumPy array with the name of its argument; empty for None. Strides count bytes.
class Array {
 public:
  Array() = default;
  Array(py::object object, const char* name) : object_(std::move(object)), name_(name) {}
  explicit operator bool() const { return bool(object_); }
  const py::object& object() const { return object_; }
  const char* name() const { return name_; }
  int ndim() const { return proxy()->nd; }
  index shape(int axis) const { return proxy()->dimensions[axis < 0 ? ndim() + axis : axis]; }
  index stride(int axis) const { return proxy()->strides[axis < 0 ? ndim() + axis : axis]; }
  Shape shape() const { return Shape(proxy()->dimensions, proxy()->dimensions + proxy()->nd); }
  char* data() const { return proxy()->data; }
  index size() const;
  int type_number() const { return py::detail::array_descriptor_proxy(proxy()->descr)->type_num; }
  DType dtype() const { return type_number() == 11 ? DType::f32 : DType::f64; }
  index itemsize() const { return dtype() == DType::f32 ? 4 : 8; }
  bool contiguous() const { return flags(0x0001); }
  bool aligned() const { return flags(0x0100); }
  bool writeable() const { return flags(0x0400); }
  std::string dtype_text() const { return py::str(object_.attr("dtype")); }
  std::string shape_text() const { return text(shape()); }
  // The same memory with the axes in another order.
  Array transposed(const std::vector<int>& axes) const;

 private:
  const py::detail::PyArray_Proxy* proxy() const { return py::detail::array_proxy(object_.ptr()); }
  bool flags(int wanted) const { return (proxy()->flags & wanted) == wanted; }
  py::object object_;
  const char* name_ = "";
};

// A float32 or float64 array in the machine's byte order, else TypeError. None gives an empty Array
// where that is allowed.
Array floats(const char* op, const char* name, const py::object& value);
Array floats_or_none(const char* op, const char* name, const py::object& value);
void expect_same_dtype(const char* op, const Array& first, const Array& other);
void expect_shape(const char* op, const Array& array, const Shape& shape);

// Rows of contiguous elements, ld elements apart; all axes but the last are one. For an input a copy
// where the array does not lie so (or unless `any_ld`, where ld < cols); for an output a refusal.
struct Rows {
  py::object keep;
  char* data;
  index rows, cols, ld;
  template <class T> T* as() const { return reinterpret_cast<T*>(data); }
  bool flat() const { return ld == cols || rows <= 1; }
};
bool lies_in_rows(const Array& array, Rows& rows);
Rows input_rows(const Array& array, bool any_ld = true);
Rows output_rows(const char* op, const Array& array);
// The pointer to n contiguous elements of a vector of shape (n,), null for None.
struct Vector {
  py::object keep;
  char* data;
  template <class T> T* as() const { return reinterpret_cast<T*>(data); }
};
Vector input_vector(const char* op, const Array& array, index n);
Vector input_flat(const Array& array);  // all elements in row-major order, any shape
// An array written in place: writeable, row-major without gaps, aligned; else ValueError.
void expect_in_place(const char* op, const Array& array);

Array new_array(DType dtype, const Shape& shape, const char* name = "out");
// A new array of zeros on cache lines, a large one on huge pages: for what stays.
Array lasting_zeros(DType dtype, const Shape& shape);
// out itself, checked, or a new array if it is None.
Array output(const char* op, const py::object& out, DType dtype, const Shape& shape);
// Refuses arrays whose memory overlaps, unless `same_allowed` and they are the same array. Different columns of one
// matrix do not overlap; other arrays that lie between each other's elements are taken to.
void expect_apart(const char* op, const Array& out, const Array& other, bool same_allowed);

// The axis counted from 0, ValueError where there is none.
int normal_axis(const char* op, const Array& array, index axis);
// The array with one axis moved to the end.
Array axis_last(const Array& array, int axis);

// The rows of a result whose rows lie along `axis`: its own memory where that serves, else an array
// beside it, which finish() copies into place.
class StagedRows {
 public:
  StagedRows(const char* op, const Array& out, int axis);
  Rows rows;
  void finish() const;

 private:
  Array beside_, target_;
};

// f(T()) with T the C++ type of dtype.
template <class F> auto with_dtype(DType dtype, F&& f) {
  return dtype == DType::f32 ? f(float()) : f(double());
}

// 64-byte aligned memory of the calling thread for the duration of a call.
char* scratch(index bytes);

// The workers for a piece of work, and its run without the interpreter's lock. A region of its own must
// be worth more than an instruction inside one: threads may have gone to sleep since the last call.
class Region {
 public:
  explicit Region(double nanoseconds) : nanoseconds_(nanoseconds), workers(workers_for(nanoseconds / 4)) {}
  template <class F> void run(F&& body) const {
    constexpr double kWorthReleasing = 20000;  // giving the lock up and back costs about 100
    if (workers == 1 && nanoseconds_ < kWorthReleasing) return body(0, 1);
    const GilReleased released;
    parallel(workers, body);
  }

 private:
  const double nanoseconds_;

 public:
  const int workers;
};

}  // namespace gv::bind
