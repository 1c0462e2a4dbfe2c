// module.cpp — the extension module gvcore._core: which topics it has, nothing else.
#include <pybind11/pybind11.h>

void register_config(pybind11::module_& m);
void register_functional(pybind11::module_& m);
void register_random(pybind11::module_& m);
void register_graph(pybind11::module_& m);
void register_plan(pybind11::module_& m);

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled kernels and plans of gvcore; the public interface is the package gvcore.";
  register_config(m);
  register_functional(m);
  register_random(m);
  register_graph(m);
  register_plan(m);
}
