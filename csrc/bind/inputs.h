// inputs.h — an input of a plan as it lies in memory: an array of any dtype that a batch may be stored
// in, or gvcore.data.Scaled, which has one with a scale and a shift. Checked, never copied.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "../plan/steps_input.h"

namespace gv::bind {

namespace py = pybind11;

inline Stored stored_as(const py::dtype& type) {
  const char kind = type.kind(), order = type.byteorder();
  const auto size = type.itemsize();
  const auto by_size = [&](Stored one, Stored two, Stored four, Stored eight) {
    return size == 1 ? one : size == 2 ? two : size == 4 ? four : eight;
  };
  if ((order == '=' || order == '|') && size <= 8) {
    if (kind == 'b') return Stored::b8;
    if (kind == 'i') return by_size(Stored::i8, Stored::i16, Stored::i32, Stored::i64);
    if (kind == 'u') return by_size(Stored::u8, Stored::u16, Stored::u32, Stored::u64);
    if (kind == 'f') return by_size(Stored::f16, Stored::f16, Stored::f32, Stored::f64);
  }
  throw py::type_error("[plan] expected x of numbers in the machine's byte order, got dtype " +
                       std::string(py::str(type)));
}

// (samples, …) with `elements` numbers a sample; says how many samples there are.
template <class T>
plan::InputRows<T> stored_rows(const py::handle& object, index elements, index& samples) {
  const bool plain = py::isinstance<py::array>(object);
  const py::object held = plain ? py::reinterpret_borrow<py::object>(object) : object.attr("array");
  if (!py::isinstance<py::array>(held)) throw py::type_error("[plan] expected x to be an array");
  const auto a = py::reinterpret_borrow<py::array>(held);
  plan::InputRows<T> rows;
  rows.stored = stored_as(a.dtype());
  rows.item_bytes = a.itemsize();
  if (!plain) {
    rows.scale = T(object.attr("scale").template cast<double>());
    rows.shift = T(object.attr("shift").template cast<double>());
  }
  if (a.ndim() == 0) throw py::value_error("[plan] expected x to have rows");
  index step = rows.item_bytes, each = 1;
  bool dense = true;
  for (auto axis = a.ndim() - 1; axis > 0; --axis) {
    dense &= a.shape(axis) == 1 || a.strides(axis) == step;
    step *= a.shape(axis);
    each *= a.shape(axis);
  }
  if (each != elements || (!dense && a.size() > 0))
    throw py::value_error("[plan] expected x with rows of " + std::to_string(elements) +
                          " elements one after the other, got shape " +
                          std::string(py::str(a.attr("shape"))) + " and strides " +
                          std::string(py::str(a.attr("strides"))));
  samples = a.shape(0);
  rows.first = static_cast<const char*>(a.data());
  rows.row_bytes = a.strides(0);
  return rows;
}

}  // namespace gv::bind
